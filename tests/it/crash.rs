//! Exactly once whatever dies: two replicas of one group are killed again and again, at random moments and at the
//! named crash points, frozen until the group has given them up, asked to leave and let in again, while records of
//! every sort keep coming. At the end the table is compared with the topic.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use frazil::runtime::crash::{
    ANSWER_RECEIVED, FILES_UPLOADED, MANIFEST_LIST_WRITTEN, METADATA_WRITTEN, REQUEST_SENT, REVOKE_ACKNOWLEDGED,
    SCHEMA_EVOLVED, STARTS_RESOLVED,
};
use serde_json::{Value, json};

use crate::kafka::{add_partitions, create_topic};
use crate::lake::Lake;
use crate::process::Frazil;
use crate::services::{Kafka, Registry, ports};
use crate::traffic::{Mix, Random, Traffic, seed};
use crate::verify::Verify;
use crate::wait::eventually;

const TOPIC: &str = "crash-orders";
/// How long an armed replica may take to reach its point.
const POINT_DEADLINE: Duration = Duration::from_secs(60);

/// What happens next to the replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    /// SIGKILL of one at a random moment.
    One,
    /// SIGKILL of both at the same moment.
    Both,
    /// The process ends itself at this point, without any clean-up.
    At(&'static str),
    /// Frozen until the group has given its partitions to the other one, then thawed: a zombie.
    Freeze,
    /// SIGTERM.
    Leave,
}

/// The points and how often each is met.
const POINTS: [(&str, usize); 8] = [
    (STARTS_RESOLVED, 3),
    (FILES_UPLOADED, 5),
    (MANIFEST_LIST_WRITTEN, 5),
    (METADATA_WRITTEN, 4),
    (REQUEST_SENT, 5),
    (ANSWER_RECEIVED, 5),
    (SCHEMA_EVOLVED, 3),
    (REVOKE_ACKNOWLEDGED, 3),
];

/// All blows in the order that the seed gives; the first is one that must find the table without a ledger.
fn blows(random: &mut Random) -> Vec<Blow> {
    let mut all: Vec<_> = POINTS.iter().flat_map(|(point, times)| vec![Blow::At(point); *times]).skip(1).collect();
    for (blow, times) in [(Blow::One, 23), (Blow::Both, 5), (Blow::Freeze, 3), (Blow::Leave, 5)] {
        all.extend(vec![blow; times]);
    }
    for last in (1..all.len()).rev() {
        let other = usize::try_from(random.below(last as u64 + 1)).unwrap();
        all.swap(last, other);
    }
    [vec![Blow::At(STARTS_RESOLVED)], all].concat()
}

/// Two places for replicas, each empty or taken.
struct Group<'a> {
    lake: &'a Lake,
    config: Value,
    places: [Option<Frazil>; 2],
    partitions: usize,
    deaths: BTreeMap<&'static str, u32>,
}

impl Group<'_> {
    fn start(&mut self, place: usize, environment: &[(&str, &str)]) {
        self.config["server"]["listen"] = format!("127.0.0.1:{}", ports(1)).into();
        self.places[place] = Some(Frazil::run(&self.lake.dir, &self.config, &[], environment));
    }

    /// Starts it unless it runs.
    fn ensure(&mut self, place: usize) -> &mut Frazil {
        if self.places[place].is_none() {
            self.start(place, &[]);
        }
        let frazil = self.places[place].as_mut().unwrap();
        assert!(frazil.is_running(), "a replica has ended by itself");
        frazil
    }

    fn ensure_both(&mut self) {
        self.ensure(0);
        self.ensure(1);
    }

    fn kill(&mut self, place: usize) {
        let mut frazil = self.places[place].take().unwrap();
        assert!(frazil.is_running(), "a replica has ended by itself");
        frazil.kill();
        *self.deaths.entry("random moment").or_default() += 1;
    }

    /// SIGTERM, where it runs; it must end well and soon.
    fn leave(&mut self, place: usize) {
        if let Some(mut frazil) = self.places[place].take() {
            let begun = Instant::now();
            let status = frazil.terminate(Duration::from_secs(20));
            assert!(status.success(), "a replica that was to leave: {status}");
            eprintln!("left after {:?}", begun.elapsed());
        }
    }

    /// True once the armed replica has ended itself.
    fn has_struck(&mut self, place: usize, point: &'static str) -> bool {
        if self.places[place].as_mut().unwrap().is_running() {
            return false;
        }
        let status = self.places[place].take().unwrap().wait(Duration::ZERO);
        assert_eq!(status.signal(), Some(6), "armed for `{point}`: {status}");
        *self.deaths.entry(point).or_default() += 1;
        true
    }

    fn await_strike(&mut self, place: usize, point: &'static str, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if self.has_struck(place, point) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// Ends a replica at a named point, having brought about what leads there.
    fn strike(&mut self, place: usize, point: &'static str, traffic: &Traffic<'_>, random: &mut Random) {
        if let Some(mut before) = self.places[place].take() {
            before.terminate(Duration::from_secs(20));
        }
        let other = 1 - place;
        let count = match point {
            STARTS_RESOLVED | SCHEMA_EVOLVED | REVOKE_ACKNOWLEDGED => 1,
            _ => random.below(3) + 1,
        };
        let armed = format!("{point}:{count}");
        if [STARTS_RESOLVED, REVOKE_ACKNOWLEDGED].contains(&point) {
            self.leave(other);
        }
        if point == STARTS_RESOLVED && self.deaths.contains_key(point) {
            self.partitions += 1;
            add_partitions(Kafka::shared(), TOPIC, self.partitions);
        }
        self.start(place, &[("FRAZIL_CRASH_AT", &armed)]);
        let until = Instant::now() + POINT_DEADLINE;
        loop {
            match point {
                SCHEMA_EVOLVED => traffic.evolve(),
                REVOKE_ACKNOWLEDGED => {
                    self.ensure(other);
                }
                _ => {}
            }
            // The other replica may be the one that takes the change, or nothing was there to be revoked yet.
            if self.await_strike(place, point, Duration::from_secs(4)) {
                return;
            }
            assert!(Instant::now() < until, "`{point}` was not reached");
            if point == REVOKE_ACKNOWLEDGED {
                self.leave(other);
            }
        }
    }
}

#[test]
fn kill_nine() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::remote("kill_nine"));
    let seed = seed("kill_nine");
    let mut random = Random(seed);
    create_topic(kafka, TOPIC, 6, &[]);
    let tables = json!([{"topic": TOPIC, "table": "shop.orders", "key": {"format": "string"}}]);
    let mut config = lake.config(kafka, registry, "crash", &tables);
    config["defaults"]["commit_interval"] = "200ms".into();
    // A replica that was killed keeps its partitions for this long.
    config["kafka"]["properties"] = json!({"session.timeout.ms": "1500", "heartbeat.interval.ms": "300"});
    let begun = Instant::now();
    let mut group = Group { lake: &lake, config, places: [None, None], partitions: 6, deaths: BTreeMap::new() };
    let traffic = Traffic::start(kafka, registry, TOPIC, Mix::ALL, random.next());
    for blow in blows(&mut random) {
        let place = usize::try_from(random.below(2)).unwrap();
        eprintln!("{:5.1} s: {blow:?} at {place}", begun.elapsed().as_secs_f64());
        match blow {
            Blow::One => {
                group.ensure(place);
                if random.below(2) == 0 {
                    group.ensure(1 - place);
                }
                std::thread::sleep(random.millis(300, 2500));
                group.kill(place);
            }
            Blow::Both => {
                group.ensure_both();
                std::thread::sleep(random.millis(300, 4000));
                (0..2).for_each(|place| group.kill(place));
            }
            Blow::At(point) => group.strike(place, point, &traffic, &mut random),
            Blow::Freeze => {
                group.ensure_both();
                std::thread::sleep(random.millis(1000, 4000));
                group.ensure(place).signal("STOP");
                std::thread::sleep(random.millis(2000, 4000));
                group.ensure(place).signal("CONT");
                std::thread::sleep(random.millis(0, 1500));
            }
            Blow::Leave => {
                group.ensure(place);
                std::thread::sleep(random.millis(300, 1500));
                group.leave(place);
            }
        }
    }
    (0..2).for_each(|place| group.leave(place));
    let produced = traffic.finish();
    eprintln!("kill_nine: {produced} records, deaths: {:#?}", group.deaths);
    for (point, times) in POINTS {
        assert!(group.deaths[point] as usize >= times.min(3), "`{point}`");
    }
    assert!(group.deaths.values().sum::<u32>() >= 60);
    Frazil::until_caught_up(&lake.dir, &group.config, Duration::from_mins(1));
    let verify = Verify::new(kafka, registry, &lake, TOPIC, "shop.orders");
    let verify = verify.with(&["--key", "string", "--dead-letters", "shop.orders__dead_letters"]);
    let report = verify.report();
    assert!(report.is_good(), "{report:#?}");
    eprintln!("kill_nine: {} rows, {} dead letters", report.count("rows"), report.count("dead_letters"));
    assert!(report.count("rows") > 1_000 && report.count("dead_letters") > 50);
}

/// Rows of two schema versions in one commit: neither may cost the other its file.
#[test]
fn two_schemas_in_one_commit() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("two_schemas_in_one_commit"));
    let topic = "two-schemas";
    create_topic(kafka, topic, 1, &[]);
    let tables =
        json!([{"topic": topic, "table": "shop.orders", "key": {"format": "string"}, "commit_interval": "1h"}]);
    let config = lake.config(kafka, registry, topic, &tables);
    let mut frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    let traffic = Traffic::start(kafka, registry, topic, Mix::GOOD, 1);
    let has_polled = |count: u64| {
        eventually("records are polled", Duration::from_mins(1), || {
            (frazil.metric("frazil_records_polled_total", "shop.orders")? >= count).then_some(())
        });
    };
    traffic.pass(100);
    has_polled(100);
    traffic.evolve();
    traffic.pass(100);
    let produced = traffic.finish();
    has_polled(produced);
    // The stop commits what is begun: everything at once.
    assert!(frazil.terminate(Duration::from_secs(30)).success());
    let verify = Verify::new(kafka, registry, &lake, topic, "shop.orders").with(&["--key", "string"]);
    assert_eq!(verify.assert_good(), produced);
}
