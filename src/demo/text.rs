//! Vocabulary and sentence patterns of the generated records: made so that a search by meaning finds something that
//! a search by words does not. Values only; what goes into which record is decided in `generate`.

use super::random::Random;

/// What the shop sells; also what tickets are about.
pub(super) const PRODUCTS: [&str; 16] = [
    "Trail Running Shoes",
    "Espresso Machine",
    "Noise-Cancelling Headphones",
    "Standing Desk",
    "Mechanical Keyboard",
    "Mountain Bike Helmet",
    "Cast Iron Skillet",
    "Smart Thermostat",
    "Merino Wool Sweater",
    "Camping Tent",
    "Robot Vacuum",
    "4K Monitor",
    "Yoga Mat",
    "Electric Kettle",
    "Baby Stroller",
    "Cordless Drill",
];

/// Notes that customers leave with an order.
pub(super) const NOTES: [&str; 8] = [
    "Please leave the parcel with the neighbour on the {floor} floor if nobody answers the door bell.",
    "This is a birthday present, so please wrap it and do not put the invoice into the box. It is for {name}.",
    "The entrance is in the back yard, behind the bakery. Call {name} when you arrive, the bell is broken.",
    "Deliver after {hour} o'clock only, the reception is closed in the morning and nobody can sign for it.",
    "Second attempt: the last one arrived with a dented corner and went back. Please pack it more carefully.",
    "Order for the office in {city}, cost centre {number}. Put the purchase number on the delivery note, please.",
    "If the colour is not in stock please take the dark one instead of waiting, we need it before the weekend.",
    "Ring twice. The dog is friendly but loud. You can also leave everything in the garage behind the house.",
];

/// A kind of trouble that customers have: patterns for a title, what happened, what they saw, and what they want.
pub(super) struct Trouble {
    titles: [&'static str; 3],
    happened: [&'static str; 3],
    seen: [&'static str; 3],
    wanted: [&'static str; 2],
}

/// All kinds of trouble, the worst first.
pub(super) const TROUBLES: [Trouble; 12] = [
    Trouble {
        titles: ["Smoke from my {product}", "{product} got dangerously hot", "Burning smell when I switch it on"],
        happened: [
            "After {number} minutes of use the casing became too hot to touch.",
            "There was a spark at the plug and then it went dark.",
            "I noticed a smell of burnt plastic and pulled the plug at once.",
        ],
        seen: [
            "The cable has melted near the connector.",
            "There is a brown mark on the table below it.",
            "The fuse of the whole flat went out twice.",
        ],
        wanted: [
            "I am afraid to use it again. Please tell me what to do and take it back.",
            "Somebody could have been hurt. I expect a call today.",
        ],
    },
    Trouble {
        titles: ["Somebody ordered on my account", "My account was broken into", "Orders that I did not place"],
        happened: [
            "I got a confirmation for a {product} which I never bought.",
            "My password was changed during the night and it was not me.",
            "There is a delivery address in {city} in my profile that I do not know.",
        ],
        seen: [
            "The sign-in history shows a phone that is not mine.",
            "{number} small amounts were taken from my card.",
            "All my saved addresses have been deleted.",
        ],
        wanted: [
            "Please lock the account and reverse the charges.",
            "Stop the shipment before it leaves, and tell me how they got in.",
        ],
    },
    Trouble {
        titles: ["Charged twice for one order", "Money taken but no order", "Payment went through two times"],
        happened: [
            "The page froze when I paid, so I pressed the button again.",
            "My bank shows two debits of the same amount within {number} seconds.",
            "The checkout said that the card was declined, yet the amount is gone.",
        ],
        seen: [
            "Only one {product} appears in my order history.",
            "The second booking has the same reference as the first.",
            "The bank says that the merchant has to release it.",
        ],
        wanted: ["Please send the surplus amount back.", "I need the refund before rent is due on {day}."],
    },
    Trouble {
        titles: ["Cannot sign in any more", "Login loops back to the start page", "Reset mail never arrives"],
        happened: [
            "Since the update on {day} my password is refused.",
            "The code from the authenticator app is always called invalid.",
            "I asked for a new password {number} times and no mail came, not even in the spam folder.",
        ],
        seen: [
            "After I type the code I am back where I began.",
            "On the phone it works, in the browser it does not.",
            "The message only says that something went wrong.",
        ],
        wanted: [
            "Please switch off the second factor once so that I can set it up anew.",
            "Can you unlock me by hand?",
        ],
    },
    Trouble {
        titles: ["Parcel is missing", "{product} never arrived", "Marked as delivered, but it is not here"],
        happened: [
            "The tracking has said out for delivery for {number} days.",
            "The driver claims to have handed it to {name}, whom nobody here knows.",
            "The depot in {city} says that the label cannot be read.",
        ],
        seen: [
            "No card was left in the letter box.",
            "I asked all the neighbours, none of them has it.",
            "The photo of the delivery shows a door that is not ours.",
        ],
        wanted: [
            "Please start a search with the carrier, or send another one.",
            "If it is not here by {day} I want my money back.",
        ],
    },
    Trouble {
        titles: ["{product} arrived broken", "Box was crushed in transit", "Scratches all over the new {product}"],
        happened: [
            "The carton was torn open on one side when the courier brought it.",
            "It was packed without any padding and rattled.",
            "I unpacked it carefully and one part fell out.",
        ],
        seen: [
            "The display has a crack from corner to corner.",
            "A screw is bent and the lid does not close.",
            "There are deep marks in the surface that cannot be polished out.",
        ],
        wanted: ["Please replace it; I can send pictures.", "I would keep it for a fair discount."],
    },
    Trouble {
        titles: ["Wrong item in the box", "Ordered one thing, got another", "Size does not match the label"],
        happened: [
            "I bought a {product} and found something else under the wrapping.",
            "The label outside is right, the thing inside is not.",
            "It is {number} centimetres shorter than the page says.",
        ],
        seen: [
            "The article number differs in the last digit.",
            "The packing slip belongs to {name} in {city}.",
            "Two colours were mixed up.",
        ],
        wanted: ["Please collect it and send what I ordered.", "Who pays for sending it back?"],
    },
    Trouble {
        titles: ["Where is my refund?", "Returned weeks ago, no money yet", "Refund is too small"],
        happened: [
            "I sent the {product} back {number} days ago.",
            "The return was confirmed on {day} and then nothing happened.",
            "You kept a fee that nobody had told me about.",
        ],
        seen: [
            "The carrier's receipt shows who signed for it.",
            "The credit note is over half of the price only.",
            "The status still says waiting for inspection.",
        ],
        wanted: ["Please transfer the rest.", "Tell me the date on which it will be booked."],
    },
    Trouble {
        titles: ["App crashes on start", "Application closes by itself", "Cannot open the app after the update"],
        happened: [
            "It shows the logo for a second and is gone.",
            "Since version {number} I cannot get past the first screen.",
            "Whenever I rotate the phone everything vanishes.",
        ],
        seen: [
            "Installing it again did not help.",
            "The same happens on my daughter's tablet.",
            "The battery drains quickly, as if it were running all the time.",
        ],
        wanted: ["Is there an older version that I can use until it is mended?", "I can send you the crash report."],
    },
    Trouble {
        titles: ["Website is very slow", "Search takes for ever", "Pages time out in the evening"],
        happened: [
            "Around {hour} o'clock each click takes half a minute.",
            "The list of results stays empty while the wheel spins.",
            "The basket needs {number} seconds to show a {product}.",
        ],
        seen: [
            "Other sites load at once, so it is not my line.",
            "It got worse after the new design came.",
            "Sometimes there is an error page about a gateway.",
        ],
        wanted: ["Please look into it, I gave up twice.", "Are you aware of that?"],
    },
    Trouble {
        titles: ["Invoice with the wrong address", "Need a bill with our tax number", "VAT is missing on the invoice"],
        happened: [
            "Our accounting refuses the document since the company name is wrong.",
            "The tax number that I typed in does not show.",
            "The PDF can no longer be downloaded.",
        ],
        seen: [
            "It still has our old office in {city} on it.",
            "The amount before tax and after tax are equal.",
            "The link answers that the document has expired.",
        ],
        wanted: [
            "Please issue it anew for order number {number}.",
            "Could you send all the invoices of the last quarter at once?",
        ],
    },
    Trouble {
        titles: ["Question about the {product}", "Is there a spare part?", "How do I clean it?"],
        happened: [
            "The manual is only in a language that I cannot read.",
            "I would like to know whether it fits the model from last year.",
            "I moved to {city} and wonder whether the warranty still holds.",
        ],
        seen: [
            "The page about accessories does not mention it.",
            "On the web people say different things.",
            "The shop assistant was not sure either.",
        ],
        wanted: ["A short hint would be enough.", "There is no hurry, and thank you for the friendly service."],
    },
];

/// Patterns of log lines, most frequent level last.
pub(super) const LOG_ERRORS: [&str; 6] = [
    "connection to database pool exhausted after {number} attempts",
    "upstream payment gateway answered 502, circuit breaker opened",
    "out of memory while rendering invoice {number}, worker restarted",
    "deadlock detected between transactions, rolled back after {number} ms",
    "certificate of inventory.internal expires in {number} hours, handshake refused",
    "disk quota reached on volume data-{number}, writes are refused",
];
/// See [`LOG_ERRORS`].
pub(super) const LOG_WARNINGS: [&str; 6] = [
    "request to warehouse service retried {number} times",
    "cache hit ratio fell to {number} percent",
    "slow query: full scan over customers, {number} rows read",
    "rate limit reached for client {number}, answering 429",
    "consumer lag of group fulfilment is {number} records",
    "clock drift of {number} ms against the time server",
];
/// See [`LOG_ERRORS`].
pub(super) const LOG_NORMAL: [&str; 8] = [
    "order accepted, reservation {number} created",
    "payment authorised, capture scheduled",
    "session opened from {city}",
    "health check passed, {number} connections idle",
    "recommendation model refreshed with {number} products",
    "label printed in depot {city}",
    "mail queued for delivery, template order-confirmation",
    "search answered with {number} hits",
];

const NAMES: [&str; 12] =
    ["Amara", "Bruno", "Chen", "Dana", "Emil", "Fatima", "Goran", "Hanna", "Ines", "Jonas", "Keiko", "Liam"];
const CITIES: [&str; 12] =
    ["Berlin", "Lyon", "Porto", "Malmö", "Kraków", "Leeds", "Austin", "Osaka", "Graz", "Turin", "Ghent", "Tampere"];
const DAYS: [&str; 5] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"];
const FLOORS: [&str; 4] = ["first", "second", "third", "fourth"];

impl Trouble {
    /// Appends one of its titles.
    pub(super) fn title(&self, random: &mut Random, product: &str, out: &mut String) {
        fill(random.pick(&self.titles), random, product, out);
    }

    /// Appends a text of three or four sentences.
    pub(super) fn body(&self, random: &mut Random, product: &str, out: &mut String) {
        let first = random.below(3) as usize;
        fill(self.happened[first], random, product, out);
        out.push(' ');
        if random.below(3) == 0 {
            fill(self.happened[(first + 1) % 3], random, product, out);
            out.push(' ');
        }
        fill(random.pick(&self.seen), random, product, out);
        out.push(' ');
        fill(random.pick(&self.wanted), random, product, out);
    }
}

/// Appends `pattern` with its `{slots}` filled.
pub(super) fn fill(pattern: &str, random: &mut Random, product: &str, out: &mut String) {
    let mut rest = pattern;
    while let Some((text, behind)) = rest.split_once('{') {
        let (slot, behind) = behind.split_once('}').unwrap_or((behind, ""));
        out.push_str(text);
        match slot {
            "product" => out.push_str(product),
            "name" => out.push_str(random.pick(&NAMES)),
            "city" => out.push_str(random.pick(&CITIES)),
            "day" => out.push_str(random.pick(&DAYS)),
            "floor" => out.push_str(random.pick(&FLOORS)),
            "hour" => out.push_str(&(8 + random.below(12)).to_string()),
            _ => out.push_str(&(2 + random.below(97)).to_string()),
        }
        rest = behind;
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn tickets_differ_and_have_no_open_slot() {
        let mut random = Random::new(1);
        let mut bodies = HashSet::new();
        for n in 0..2_000 {
            let (mut title, mut body) = (String::new(), String::new());
            let trouble = &TROUBLES[n % TROUBLES.len()];
            trouble.title(&mut random, "Yoga Mat", &mut title);
            trouble.body(&mut random, "Yoga Mat", &mut body);
            assert!(!title.contains(['{', '}']) && !body.contains(['{', '}']), "{title}: {body}");
            bodies.insert(body);
        }
        assert!(bodies.len() > 1_000, "only {} different texts", bodies.len());
    }

    #[test]
    fn only_known_slots_are_used() {
        let all = TROUBLES.iter().flat_map(|t| t.titles.iter().chain(&t.happened).chain(&t.seen).chain(&t.wanted));
        let all = all.chain(&NOTES).chain(&LOG_ERRORS).chain(&LOG_WARNINGS).chain(&LOG_NORMAL);
        for slot in all.flat_map(|pattern| pattern.split('{').skip(1)) {
            let name = slot.split('}').next().unwrap();
            assert!(["product", "name", "city", "day", "floor", "hour", "number"].contains(&name), "{name}");
        }
    }
}
