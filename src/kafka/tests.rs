//! The adapter against librdkafka's mock cluster: the real protocol on loopback.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use super::*;
use crate::model::ids::Attempt;
use crate::model::ledger::Position;
use crate::model::raw::RawBatch;
use crate::ports::Charge;

const PATIENCE: Duration = Duration::from_secs(30);

/// A mock cluster, which lives inside its producer.
struct Broker {
    producer: BaseProducer,
}

impl Broker {
    fn new(topics: &[(&str, i32)]) -> Self {
        let producer: BaseProducer =
            ClientConfig::new().set("test.mock.num.brokers", "1").set("linger.ms", "0").create().unwrap();
        native::no_rebalance_delay(producer.client());
        let mock = producer.client().mock_cluster().unwrap();
        for (topic, partitions) in topics {
            mock.create_topic(topic, *partitions, 1).unwrap();
        }
        drop(mock);
        Self { producer }
    }

    fn options(&self, strategy: &str) -> Options {
        let servers = self.producer.client().mock_cluster().unwrap().bootstrap_servers();
        let mut options = Options::new(servers, "group");
        options.properties.insert("partition.assignment.strategy".to_owned(), strategy.to_owned());
        // The mock cluster completes a rebalance a second before the session would end.
        options.properties.insert("session.timeout.ms".to_owned(), "3000".to_owned());
        options.properties.insert("heartbeat.interval.ms".to_owned(), "100".to_owned());
        options
    }

    fn open(&self, strategy: &str) -> Kafka {
        Kafka::open(&self.options(strategy), Clock::system()).unwrap()
    }

    fn produce(&self, topic: &str, partition: i32, values: std::ops::Range<u32>) {
        for value in values {
            let text = value.to_string();
            self.send(BaseRecord::<[u8], str>::to(topic).partition(partition).payload(&text));
        }
        self.producer.flush(PATIENCE).unwrap();
    }

    fn send(&self, record: BaseRecord<'_, [u8], str>) {
        let mut record = record;
        while let Err((error, again)) = self.producer.send(record) {
            assert!(
                matches!(error, KafkaError::MessageProduction(code) if format!("{code:?}") == "QueueFull"),
                "{error}"
            );
            self.producer.poll(Duration::from_millis(10));
            record = again;
        }
    }
}

/// A table's driver as tests play it.
struct Driver {
    source: Arc<TableSource>,
    events: mpsc::Receiver<SourceEvent>,
    clock: Clock,
}

impl Driver {
    fn new(kafka: &Kafka, topics: &[&str], budget: usize) -> Self {
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        let (source, events) = kafka.add_table(topics, Budget::new("test", budget)).unwrap();
        Self { source, events, clock: Clock::system() }
    }

    async fn next(&mut self) -> SourceEvent {
        self.clock.timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("an open channel")
    }

    async fn assigned(&mut self) -> Vec<TopicPartition> {
        match self.next().await {
            SourceEvent::Assigned(partitions) => partitions,
            other => panic!("{}", describe(&other)),
        }
    }

    fn start(&self, source: &TopicPartition, next: i64, attempt: u64) {
        let at = Position { next: NextOffset(next), leader_epoch: None };
        self.source.start(vec![Start { source: source.clone(), at, attempt: Attempt(attempt) }]);
    }

    async fn batch(&mut self) -> (RawBatch, Charge) {
        match self.next().await {
            SourceEvent::Batch(batch, charge) => (batch, charge),
            other => panic!("{}", describe(&other)),
        }
    }

    /// Values of one partition in order, up to the end that the broker tells; checks that batches join up.
    async fn read_to_end(&mut self, mut at: i64, attempt: u64) -> (Vec<String>, i64) {
        let mut values = Vec::new();
        loop {
            match self.next().await {
                SourceEvent::Batch(batch, _) if batch.attempt == Attempt(attempt) => {
                    assert_eq!(batch.first.0, at);
                    at = batch.next.0;
                    values.extend(self::values(&batch));
                }
                SourceEvent::Eof { attempt: of, next, .. } if of == Attempt(attempt) => {
                    assert!(next.0 >= at);
                    return (values, next.0);
                }
                SourceEvent::Batch(..) | SourceEvent::Eof { .. } => {}
                other => panic!("{}", describe(&other)),
            }
        }
    }
}

fn values(batch: &RawBatch) -> Vec<String> {
    let text = |record| String::from_utf8(batch.value(record).unwrap_or(b"null").to_vec()).unwrap();
    batch.records.iter().map(text).collect()
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

fn describe(event: &SourceEvent) -> String {
    match event {
        SourceEvent::Assigned(partitions) => format!("assigned {partitions:?}"),
        SourceEvent::Revoked { partitions, lost, .. } => format!("revoked {partitions:?}, lost: {lost}"),
        SourceEvent::Batch(batch, _) => format!("batch of {} at {}", batch.source, batch.first),
        SourceEvent::Eof { source, attempt, next } => format!("end of {source} ({attempt:?}) at {next}"),
        SourceEvent::OutOfRange { source, .. } => format!("{source} out of range"),
        SourceEvent::Failed { source, error, .. } => format!("{source} failed: {error:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_come_whole_and_in_order() {
    let broker = Broker::new(&[("a", 1)]);
    let headers = OwnedHeaders::new()
        .insert(Header { key: "h", value: Some("1") })
        .insert(Header { key: "h", value: None::<&str> });
    broker.send(BaseRecord::to("a").partition(0).key(&b"k"[..]).payload("v").timestamp(1234).headers(headers));
    broker.send(BaseRecord::to("a").partition(0).key(&b""[..]));
    broker.send(BaseRecord::to("a").partition(0).payload(""));
    broker.producer.flush(PATIENCE).unwrap();
    let kafka = broker.open("cooperative-sticky");
    let mut driver = Driver::new(&kafka, &["a"], 1 << 20);
    let source = driver.assigned().await.remove(0);
    driver.start(&source, 0, 1);
    let (batch, charge) = driver.batch().await;
    let read: Vec<_> = batch.records.iter().map(|r| (r.offset, batch.key(r), batch.value(r))).collect();
    let expected = [(0, Some(&b"k"[..]), Some(&b"v"[..])), (1, Some(&b""[..]), None), (2, None, Some(&b""[..]))];
    assert_eq!(read, expected);
    assert_eq!(batch.records[0].timestamp_ms, 1234);
    let headers: Vec<_> = batch.headers(&batch.records[0]).collect();
    assert_eq!(headers, [(&b"h"[..], Some(&b"1"[..])), (&b"h"[..], None)]);
    assert_eq!(batch.headers(&batch.records[1]).count(), 0);
    assert_eq!((batch.first, batch.next), (NextOffset(0), NextOffset(3)));
    drop(charge);
    assert!(matches!(driver.next().await, SourceEvent::Eof { next: NextOffset(3), .. }));
    kafka.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_attempt_reads_anew_under_either_protocol() {
    for strategy in ["range", "cooperative-sticky"] {
        let broker = Broker::new(&[("a", 2)]);
        broker.produce("a", 0, 0..5000);
        let kafka = broker.open(strategy);
        let mut driver = Driver::new(&kafka, &["a"], 1 << 30);
        assert_eq!(driver.assigned().await.len(), 2);
        let source = TopicPartition::new("a", 0);
        driver.start(&source, 10, 1);
        assert_eq!(driver.read_to_end(10, 1).await, (numbers(10..5000), 5000), "{strategy}");
        // While it is being read, and after a stop, and beside another partition that begins.
        for attempt in 2..6 {
            driver.start(&source, 4000, attempt);
            assert_eq!(driver.read_to_end(4000, attempt).await, (numbers(4000..5000), 5000), "{strategy}");
        }
        driver.source.stop(vec![source.clone()]);
        broker.produce("a", 0, 5000..5100);
        driver.start(&source, 4999, 6);
        assert_eq!(driver.read_to_end(4999, 6).await, (numbers(4999..5100), 5100), "{strategy}");
        driver.start(&TopicPartition::new("a", 1), 0, 7);
        assert_eq!(driver.read_to_end(0, 7).await, (vec![], 0), "{strategy}");
        broker.produce("a", 0, 5100..5200);
        // Beginning another partition begins this one anew under the eager protocol, which tells its end once more.
        let (mut read, mut at) = (Vec::new(), 5100);
        while at < 5200 {
            let (more, next) = driver.read_to_end(at, 6).await;
            read.extend(more);
            at = next;
        }
        assert_eq!((read, at), (numbers(5100..5200), 5200), "{strategy}");
        kafka.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn positions_outside_the_log_are_told() {
    let broker = Broker::new(&[("a", 1)]);
    broker.produce("a", 0, 0..3);
    let kafka = broker.open("cooperative-sticky");
    let mut driver = Driver::new(&kafka, &["a"], 1 << 20);
    let source = driver.assigned().await.remove(0);
    driver.start(&source, 100, 1);
    let event = driver.next().await;
    assert!(matches!(event, SourceEvent::OutOfRange { attempt: Attempt(1), .. }), "{}", describe(&event));
    driver.start(&source, 0, 2);
    assert_eq!(driver.read_to_end(0, 2).await, (numbers(0..3), 3));
    kafka.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_budget_keeps_records_waiting_and_loses_none() {
    let broker = Broker::new(&[("a", 1), ("b", 1)]);
    broker.produce("a", 0, 0..20_000);
    broker.produce("b", 0, 0..10);
    let mut options = broker.options("cooperative-sticky");
    options.batch_bytes = 100;
    let kafka = Kafka::open(&options, Clock::system()).unwrap();
    let mut full = Driver::new(&kafka, &["a"], 1);
    let mut free = Driver::new(&kafka, &["b"], 1 << 20);
    let source = full.assigned().await.remove(0);
    full.start(&source, 0, 1);
    let (first, charge) = full.batch().await;
    // The budget is spent; the other table and the questions go on.
    let other = free.assigned().await.remove(0);
    free.start(&other, 0, 1);
    assert_eq!(free.read_to_end(0, 1).await, (numbers(0..10), 10));
    let mut read = values(&first);
    let next = first.next.0;
    drop(charge);
    read.extend(full.read_to_end(next, 1).await.0);
    assert_eq!(read, numbers(0..20_000));
    kafka.close().await;
}

/// Two members share four partitions, then one of them leaves. `withhold` lets revokes run into their time limit.
async fn check_hand_over(strategy: &str, withhold: bool) {
    let broker = Broker::new(&[("a", 4)]);
    let mut options = broker.options(strategy);
    if withhold {
        options.revoke_timeout = Duration::from_millis(200);
    }
    let first = Kafka::open(&options, Clock::system()).unwrap();
    let mut one = Driver::new(&first, &["a"], 1 << 20);
    let all = one.assigned().await;
    assert_eq!(all.len(), 4);
    for source in &all {
        one.start(source, 0, 1);
    }
    let mut held: [BTreeSet<TopicPartition>; 2] = [all.into_iter().collect(), BTreeSet::new()];
    let mut withheld = Vec::new();
    let mut take = |held: &mut [BTreeSet<TopicPartition>; 2], who: usize, event| match event {
        SourceEvent::Assigned(partitions) => {
            // Nobody is given what somebody else has not let go of.
            for source in &partitions {
                assert!(!held[1 - who].contains(source), "{source}");
            }
            held[who].extend(partitions);
        }
        SourceEvent::Revoked { partitions, lost, done } => {
            assert!(!lost);
            for source in &partitions {
                assert!(held[who].remove(source), "{source}");
            }
            if withhold { withheld.push(done) } else { done.send(()).unwrap() }
        }
        SourceEvent::Eof { .. } => {}
        other => panic!("{strategy}: {}", describe(&other)),
    };
    let second = Kafka::open(&options, Clock::system()).unwrap();
    let mut two = Driver::new(&second, &["a"], 1 << 20);
    while held.each_ref().map(BTreeSet::len) != [2, 2] {
        tokio::select! {
            event = one.next() => take(&mut held, 0, event),
            event = two.next() => take(&mut held, 1, event),
        }
    }
    // What stays is read on without a gap, though the rebalance came while it stood at its end.
    if strategy == "cooperative-sticky" {
        let kept = held[0].first().unwrap().clone();
        broker.produce("a", kept.partition, 0..10);
        let mut read = Vec::new();
        while read.len() < 10 {
            match one.next().await {
                SourceEvent::Batch(batch, _) => read.extend(values(&batch)),
                event => take(&mut held, 0, event),
            }
        }
        assert_eq!(read, numbers(0..10));
    }
    first.close().await;
    held[0].clear();
    while held[1].len() < 4 {
        let event = two.next().await;
        take(&mut held, 1, event);
    }
    let source = held[1].last().unwrap().clone();
    broker.produce("a", source.partition, 50..60);
    two.start(&source, 0, 9);
    let (read, _) = two.read_to_end(0, 9).await;
    assert!(read.ends_with(&numbers(50..60)), "{strategy}: {read:?}");
    second.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_hand_over_under_the_eager_protocol() {
    check_hand_over("range", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_members_hand_over_under_the_cooperative_protocol() {
    check_hand_over("cooperative-sticky", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_does_not_answer_holds_a_hand_over_up_for_a_bounded_time() {
    check_hand_over("cooperative-sticky", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_are_asked() {
    let broker = Broker::new(&[("a", 3)]);
    broker.produce("a", 1, 0..7);
    let kafka = broker.open("cooperative-sticky");
    kafka.ping().await.unwrap();
    let driver = Driver::new(&kafka, &["a"], 1 << 20);
    let facts = driver.source.topic("a").await.unwrap().unwrap();
    assert_eq!(facts.partitions, [0, 1, 2]);
    assert!(facts.cluster_id.starts_with("mockCluster"), "{}", facts.cluster_id);
    assert!(facts.topic_id.is_some());
    assert_eq!(driver.source.topic("nowhere").await.unwrap(), None);
    let asked = [TopicPartition::new("a", 0), TopicPartition::new("a", 1), TopicPartition::new("a", 77)];
    let ranges = driver.source.watermarks(&asked).await.unwrap();
    let range = |end| Watermarks { low: NextOffset(0), stable: NextOffset(end), high: NextOffset(end) };
    assert_eq!(ranges, [(asked[0].clone(), range(0)), (asked[1].clone(), range(7))].into());
    kafka.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_broker_is_no_error_but_trouble() {
    let kafka = Kafka::open(&Options::new("127.0.0.1:1", "group"), Clock::system()).unwrap();
    let driver = Driver::new(&kafka, &["a"], 1 << 20);
    let error = driver.source.topic("a").await.unwrap_err();
    assert_eq!(error.kind(), crate::error::ErrorKind::Unavailable);
    assert!(kafka.broker_trouble().is_some());
    kafka.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_belongs_to_one_table() {
    let broker = Broker::new(&[("a", 1)]);
    let kafka = broker.open("range");
    let mut driver = Driver::new(&kafka, &["a"], 1);
    let error = kafka.add_table(vec!["a".to_owned()], Budget::new("test", 1)).err().unwrap();
    assert_eq!(error.kind(), crate::error::ErrorKind::InvalidConfig);
    driver.assigned().await;
    kafka.remove_table(driver.source.id());
    // The channel ends, and the topic is free for another table.
    while driver.clock.timeout(PATIENCE, driver.events.recv()).await.unwrap().is_some() {}
    let mut next = Driver::new(&kafka, &["a"], 1);
    assert_eq!(next.assigned().await.len(), 1);
    kafka.close().await;
}

/// A broker of a few lines, which answers for versions and for metadata and nothing else. While it `starts` it does
/// so as Kafka does: with its topics, and without a single broker.
struct StartingBroker {
    address: SocketAddr,
    starts: Arc<AtomicBool>,
}

impl StartingBroker {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let starts = Arc::new(AtomicBool::new(false));
        let starting = Arc::clone(&starts);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, starting) = (stream.unwrap(), Arc::clone(&starting));
                std::thread::spawn(move || while Self::answer(&stream, address, &starting).is_some() {});
            }
        });
        Self { address, starts }
    }

    /// Reads a request and answers it; `None` at the end of the connection.
    fn answer(mut stream: &TcpStream, address: SocketAddr, starts: &AtomicBool) -> Option<()> {
        const METADATA: u8 = 3;
        let mut size = [0; 4];
        stream.read_exact(&mut size).ok()?;
        let mut request = vec![0; u32::from_be_bytes(size) as usize];
        stream.read_exact(&mut request).ok()?;
        let mut answer = request[4..8].to_vec();
        if request[..2] == [0, METADATA] {
            let brokers = u8::from(!starts.load(Ordering::Relaxed));
            answer.extend([0, 0, 0, 0, 0, 0, 0, brokers]); // no throttling
            for _ in 0..brokers {
                answer.extend([0, 0, 0, 1, 0, 9]); // its id, and the length of the host
                answer.extend(b"127.0.0.1");
                answer.extend(u32::from(address.port()).to_be_bytes());
                answer.extend([255, 255]); // no rack
            }
            answer.extend([255; 6]); // neither a cluster's id nor a controller
            answer.extend([0, 0, 0, 1, 0, 0, 0, 1, b't', 0, 0, 0, 0, 0]); // the topic `t`, without partitions
        } else {
            // Versions: no error, of metadata 0 to 4, of this request 0 to 3; no throttling.
            answer.extend([0, 0, 3, 0, METADATA, 0, 0, 0, 4, 0, 0, 18, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0]);
        }
        stream.write_all(&u32::try_from(answer.len()).unwrap().to_be_bytes()).ok()?;
        stream.write_all(&answer).ok()
    }
}

/// <https://github.com/confluentinc/librdkafka/issues/5301>
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_counts_itself_out_while_it_starts_is_found_again() {
    let broker = StartingBroker::new();
    let kafka = Kafka::open(&Options::new(broker.address.to_string(), "group"), Clock::system()).unwrap();
    kafka.ping().await.unwrap();
    broker.starts.store(true, Ordering::Relaxed);
    // librdkafka asks by itself too: this one is answered, or comes after the answer that took the broker away.
    drop(kafka.ping().await);
    broker.starts.store(false, Ordering::Relaxed);
    let clock = Clock::system();
    while let Err(error) = kafka.ping().await {
        assert!(clock.elapsed() < PATIENCE, "{error}");
    }
}
