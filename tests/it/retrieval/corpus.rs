//! Tickets and order notes with planted answers among many that are like them, and the questions that these answer.
//! The same seed gives the same.

use crate::traffic::Random;

/// Questions and their answers in other words, a tab between them.
const PARAPHRASES: &str = include_str!("../../fixtures/paraphrases.tsv");
/// Texts in all.
const TEXTS: usize = 3_000;
/// Questions of each slice that is generated.
const QUESTIONS: usize = 40;
/// The first moment of the texts, a midnight, and over how many days they lie.
const BEGIN_MS: i64 = 1_767_571_200_000;
const DAYS: u64 = 42;
const DAY_MS: u64 = 86_400_000;

/// A kind of question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slice {
    /// An identifier, among others that differ by a digit, the year or the kind.
    Id,
    /// A word that one text has.
    Word,
    /// The answer in other words, among texts that have one of the question's.
    Paraphrase,
    /// A text that is there five times, of which a window in time holds one.
    Time,
    /// What no text is about.
    Nothing,
}

/// What is produced.
#[derive(Debug, Clone)]
pub struct Text {
    pub title: String,
    pub body: Option<String>,
    pub time_ms: i64,
}

/// A question and what is right.
#[derive(Debug, Clone)]
pub struct Judged {
    pub slice: Slice,
    pub query: String,
    /// The number of the only text that answers it; `None` where none does.
    pub answer: Option<usize>,
    /// The first moment of what is asked for, and the first behind it.
    pub window_ms: Option<[i64; 2]>,
}

/// Everything that is asked and answered.
pub struct Corpus {
    pub texts: Vec<Text>,
    pub judged: Vec<Judged>,
    random: Random,
}

/// The words of one trade.
struct Area {
    things: [&'static str; 8],
    states: [&'static str; 6],
    wishes: [&'static str; 5],
}

impl Corpus {
    pub fn new(seed: u64) -> Self {
        let mut this = Self { texts: Vec::new(), judged: Vec::new(), random: Random(seed) };
        this.plant_ids();
        this.plant_words();
        this.plant_paraphrases();
        this.plant_times();
        this.ask_for_nothing();
        while this.texts.len() < TEXTS {
            let (title, body) = this.everyday();
            this.plant_somewhen(title, Some(body));
        }
        this.shuffle();
        this
    }

    fn plant_ids(&mut self) {
        const KINDS: [&str; 4] = ["INV", "ORD", "RMA", "CRD"];
        for n in 0..QUESTIONS {
            let (kind, other, number) = (KINDS[n % 4], KINDS[(n + 1) % 4], 4711 + n * 137);
            let (title, body) = self.everyday();
            let name = format!("{kind}-2026-{number:06}");
            let like = [
                format!("{kind}-2026-{:06}", number + 1),
                format!("{other}-2026-{number:06}"),
                format!("{kind}-2025-{number:06}"),
            ];
            let answer = self.plant_somewhen(title.clone(), Some(format!("{body} Reference {name}.")));
            for like in like {
                self.plant_somewhen(title.clone(), Some(format!("{body} Reference {like}.")));
            }
            let query = match n / 4 % 4 {
                0 => name,
                1 => format!("what happened to {name}"),
                2 => name.to_lowercase(),
                _ => format!("status of {name} please"),
            };
            self.ask(Slice::Id, query, Some(answer), None);
        }
    }

    fn plant_words(&mut self) {
        const BEGINNINGS: [&str; 12] =
            ["bro", "vel", "tar", "mig", "zun", "pol", "quar", "fen", "dro", "lix", "sta", "gom"];
        const ENDS: [&str; 8] = ["vak", "ton", "dur", "mex", "lin", "gor", "bel", "rix"];
        for n in 0..QUESTIONS {
            let word = format!("{}{}{}", BEGINNINGS[n % 12], BEGINNINGS[(n / 12 * 5 + n + 3) % 12], ENDS[n % 8]);
            let (title, body) = self.everyday();
            let answer = self.plant_somewhen(title.clone(), Some(format!("{body} It is for the {word} project.")));
            self.plant_somewhen(title, Some(format!("{body} It is for the other project.")));
            let query = match n % 4 {
                0 => word,
                1 => format!("{word}s"),
                2 => format!("the {word} project"),
                _ => format!("any mention of {word}"),
            };
            self.ask(Slice::Word, query, Some(answer), None);
        }
    }

    fn plant_paraphrases(&mut self) {
        for (query, text) in paraphrases() {
            let answer = self.plant_somewhen(text.to_owned(), None);
            self.ask(Slice::Paraphrase, query.to_owned(), Some(answer), None);
            let words: Vec<String> = content(query).collect();
            for _ in 0..2 {
                let (title, body) = self.everyday();
                let word = pick(&mut self.random, &words);
                self.plant_somewhen(title, Some(format!("{body} Keyword: {word}.")));
            }
        }
    }

    fn plant_times(&mut self) {
        for n in 0..QUESTIONS {
            let (thing, depot) = (AREAS[n % 6].things[n / 6 % 8], 10 + n);
            let right = self.random.below(5);
            for week in 0..5 {
                let day = BEGIN_MS + ((week * 7 + n as u64 % 7) * DAY_MS).cast_signed();
                let time = day + self.random.below(DAY_MS).cast_signed();
                let mut count = |depot: usize| {
                    let title = format!("Weekly count of the {thing} in depot {depot}");
                    self.plant(title, Some("Counted by hand, nothing is missing.".to_owned()), time)
                };
                let answer = count(depot);
                count(depot + 50);
                if week == right {
                    let query = format!("weekly count of the {thing} in depot {depot}");
                    self.ask(Slice::Time, query, Some(answer), Some([day, day + DAY_MS.cast_signed()]));
                }
            }
        }
    }

    fn ask_for_nothing(&mut self) {
        for n in 0..QUESTIONS {
            let (one, other) = (ABSENT[n % 20], ABSENT[(n * 3 + 1) % 20]);
            let query = if n < 20 { one.to_owned() } else { format!("{one} and {other}") };
            self.ask(Slice::Nothing, query, None, None);
        }
    }

    /// A ticket or an order note as there are many.
    fn everyday(&mut self) -> (String, String) {
        let random = &mut self.random;
        let area = pick(random, &AREAS);
        let (thing, state, wish) =
            (*pick(random, &area.things), *pick(random, &area.states), *pick(random, &area.wishes));
        if random.below(3) == 0 {
            let (order, count) = (100_000 + random.below(800_000), 2 + random.below(30));
            let body = format!("{count} x {thing}. The last {thing} {state}. {wish}");
            return (format!("Note on order ORD-2025-{order}"), body);
        }
        let more = *pick(random, &area.wishes);
        let body = if more == wish { wish.to_owned() } else { format!("{wish} {more}") };
        (format!("The {thing} {state}"), body)
    }

    fn plant_somewhen(&mut self, title: String, body: Option<String>) -> usize {
        let time_ms = BEGIN_MS + self.random.below(DAYS * DAY_MS).cast_signed();
        self.plant(title, body, time_ms)
    }

    fn plant(&mut self, title: String, body: Option<String>, time_ms: i64) -> usize {
        self.texts.push(Text { title, body, time_ms });
        self.texts.len() - 1
    }

    fn ask(&mut self, slice: Slice, query: String, answer: Option<usize>, window_ms: Option<[i64; 2]>) {
        self.judged.push(Judged { slice, query, answer, window_ms });
    }

    /// Answers do not stand beside what was planted with them.
    fn shuffle(&mut self) {
        let mut order: Vec<usize> = (0..self.texts.len()).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, usize::try_from(self.random.below(last as u64 + 1)).unwrap());
        }
        let mut place = vec![0; order.len()];
        order.iter().enumerate().for_each(|(new, old)| place[*old] = new);
        self.texts = order.iter().map(|old| self.texts[*old].clone()).collect();
        for judged in &mut self.judged {
            judged.answer = judged.answer.map(|old| place[old]);
        }
    }
}

/// Each question with the text that answers it.
pub fn paraphrases() -> impl Iterator<Item = (&'static str, &'static str)> {
    PARAPHRASES.lines().map(|line| line.split_once('\t').unwrap())
}

/// The words of a text that say something, lower case.
pub fn content(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_alphanumeric() && c != '-');
    words.filter(|word| word.len() > 3).map(str::to_lowercase)
}

fn pick<'a, T>(random: &mut Random, choices: &'a [T]) -> &'a T {
    &choices[usize::try_from(random.below(choices.len() as u64)).unwrap()]
}

/// What no text is about.
pub const ABSENT: [&str; 20] = [
    "penguin",
    "volcano",
    "sonata",
    "pharaoh",
    "telescope",
    "glacier",
    "ballet",
    "dinosaur",
    "comet",
    "violin",
    "submarine",
    "orchid",
    "cathedral",
    "safari",
    "tornado",
    "chess",
    "haiku",
    "lighthouse",
    "walrus",
    "marathon",
];

const AREAS: [Area; 6] = [
    Area {
        things: [
            "bicycle frame",
            "rear derailleur",
            "disc brake",
            "saddle",
            "pedal set",
            "carbon fork",
            "chain guard",
            "spoke kit",
        ],
        states: [
            "creaks on steep climbs",
            "has a scratch below the paint",
            "was built with the wrong thread",
            "slips under load",
            "rubs against the tyre",
            "lacks its serial sticker",
        ],
        wishes: [
            "Please send a mechanic to look at it.",
            "We will bring it to the workshop.",
            "The rider wants it before the race.",
            "A replacement from the spring series would do.",
            "Our club has three more of them.",
        ],
    },
    Area {
        things: [
            "rye loaf",
            "croissant tray",
            "oat biscuit",
            "wedding cake",
            "pretzel batch",
            "sourdough starter",
            "almond tart",
            "cinnamon roll",
        ],
        states: [
            "was baked an hour too long",
            "needs a second label",
            "should have less sugar",
            "came out flat",
            "was decorated with the wrong name",
            "is wanted without nuts",
        ],
        wishes: [
            "Collect it at the counter before nine.",
            "The café around the corner takes the rest.",
            "Keep the recipe as it was in autumn.",
            "Put it on the tray by the window.",
            "Bake another one tomorrow.",
        ],
    },
    Area {
        things: [
            "standing desk",
            "filing cabinet",
            "conference table",
            "swivel chair",
            "bookcase",
            "desk partition",
            "coat stand",
            "meeting booth",
        ],
        states: [
            "wobbles on the new carpet",
            "has a drawer that sticks",
            "does not match the oak veneer",
            "was assembled upside down",
            "is ten centimetres too wide",
            "squeaks when it is raised",
        ],
        wishes: [
            "The facility team is on the third floor.",
            "Deliver it through the goods lift.",
            "We have budget for one more this quarter.",
            "Someone should measure the corridor first.",
            "Leave the old one in the basement.",
        ],
    },
    Area {
        things: [
            "olive tree",
            "rose cutting",
            "herb seedling",
            "boxwood hedge",
            "tomato plant",
            "bamboo screen",
            "fern basket",
            "apple graft",
        ],
        states: [
            "has yellow leaves",
            "arrived with dry roots",
            "is full of aphids",
            "outgrew its pot",
            "lost its buds in the frost",
            "was planted too deep",
        ],
        wishes: [
            "Water it twice a week.",
            "The gardener comes on Mondays.",
            "Move it into the greenhouse.",
            "It stands beside the northern fence.",
            "Tell us which soil it likes.",
        ],
    },
    Area {
        things: [
            "forklift",
            "pallet jack",
            "loading ramp",
            "dock leveller",
            "conveyor belt",
            "stretch wrapper",
            "barcode gun",
            "roller cage",
        ],
        states: [
            "stops in the middle of the shift",
            "is due for inspection",
            "beeps without a reason",
            "was parked in the wrong bay",
            "needs new hydraulic oil",
            "has a bent guard rail",
        ],
        wishes: [
            "The night shift works around it.",
            "Maintenance has the spare part.",
            "Write it into the shift log.",
            "Bay seven is closed until then.",
            "The supervisor signs for it.",
        ],
    },
    Area {
        things: [
            "sensor node",
            "edge gateway",
            "database replica",
            "build runner",
            "message queue",
            "certificate bundle",
            "load balancer",
            "dashboard panel",
        ],
        states: [
            "reports stale figures",
            "restarts every few minutes",
            "was rolled back on Sunday",
            "drops one request in a thousand",
            "still runs the previous release",
            "logs a warning at midnight",
        ],
        wishes: [
            "The on-call engineer has seen it.",
            "A ticket for the platform team exists.",
            "We would rather wait for the next release.",
            "Increase the limit for this tenant.",
            "See the runbook, chapter four.",
        ],
    },
];
