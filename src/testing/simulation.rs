//! One seed: replicas of the real driver over the models, things that happen to them, then calm, then the comparison.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{mpsc, watch};

use super::existing;
use super::group::{Group, Member};
use super::lake::{WatchedCatalog, WatchedLake, WatchedRegistry, catalog_fault};
use super::operator::Operator;
use super::producer::{FIRST_SCHEMA, Producer, register};
use super::random::Random;
use super::scenario::{Happening, Scenario};
use super::verify;
use super::world::World;
use crate::error::{Error, Result};
use crate::lake::catalog::memory::MemoryCatalog;
use crate::lake::storage::Stores;
use crate::lake::{IcebergLake, LakeOptions};
use crate::pipeline::driver::{self, Ports, TableSpec};
use crate::ports::{Source, SourceEvent};
use crate::route::{Hub, Shared, Takes};
use crate::runtime::compute::Compute;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::task::{self, Task, TaskKind};
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;

/// How long everything may take to be committed once nothing goes wrong any more.
const SETTLED_BY: Duration = Duration::from_secs(400);
/// How long a replica may take to end.
const ENDED_BY: Duration = Duration::from_mins(1);
/// A member that is not heard of for so long is thought dead.
const SESSION: Duration = Duration::from_secs(3);

/// What a seed came to.
#[derive(Debug)]
pub struct Report {
    /// A hash over the trace.
    pub hash: u64,
    /// Events in the trace.
    pub events: u64,
    /// Rows in the table.
    pub rows: usize,
    /// What was wrong; empty where all invariants hold.
    pub wrong: Vec<String>,
    /// The scenario, for people.
    pub scenario: String,
    /// The last events.
    pub trace: Vec<String>,
}

/// Runs a seed.
///
/// # Errors
/// `Unavailable` where the runtime cannot be made.
pub fn run(seed: u64) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(|e| Error::unavailable("start a runtime").with_source(e))?;
    let mut random = Random::new(seed);
    let scenario = Scenario { shared: seed % 2 == 1, ..Scenario::new(&mut random) };
    let text = format!("{scenario:#?}");
    let (world, rows) = runtime.block_on(async {
        let world = World::new(seed, random, scenario.fault_per_mille);
        let mut simulation = Simulation::new(Arc::clone(&world), scenario);
        let rows = simulation.run().await;
        (world, rows)
    });
    drop(runtime);
    if let Err(error) = &rows {
        world.wrong(error.chain());
    }
    let (hash, events, trace) = world.trace();
    Ok(Report { hash, events, rows: rows.unwrap_or(0), wrong: world.found(), scenario: text, trace })
}

struct Replica {
    member: Arc<Member>,
    health: Health,
    shutdown: Shutdown,
    driver: Task,
    /// What belongs to its process besides.
    others: Vec<Task>,
}

struct Simulation {
    world: Arc<World>,
    scenario: Scenario,
    spec: Arc<TableSpec>,
    catalog: MemoryCatalog,
    stores: Stores,
    group: Arc<Group>,
    operator: Operator,
    producer: Producer,
    replicas: BTreeMap<u64, Replica>,
    lives: u64,
    /// Members that are no more, until the group notices.
    dead: Vec<(Duration, Arc<Member>)>,
    /// Members that are thought dead, until they hear of it.
    zombies: Vec<(Duration, Arc<Member>)>,
}

impl Simulation {
    fn new(world: Arc<World>, scenario: Scenario) -> Self {
        let catalog = MemoryCatalog::new("memory:///warehouse", world.clock.clone());
        let table = scenario.spec.settings.table.clone();
        let operator = Operator {
            world: Arc::clone(&world),
            catalog: catalog.clone(),
            table,
            given_up: Vec::new(),
            read_again: false,
        };
        Self {
            spec: Arc::new(scenario.spec.clone()),
            world,
            scenario,
            catalog,
            stores: Stores::memory(),
            group: Arc::default(),
            operator,
            producer: Producer::default(),
            replicas: BTreeMap::new(),
            lives: 0,
            dead: Vec::new(),
            zombies: Vec::new(),
        }
    }

    async fn run(&mut self) -> Result<usize> {
        for (name, partitions) in &self.scenario.topics {
            self.world.broker().create(name, self.world.clock.fresh_id(), *partitions);
        }
        register(&self.world, FIRST_SCHEMA);
        if self.scenario.spec.adopts {
            existing::make(&self.catalog, &self.stores, &self.scenario, self.world.clock.now_ms()).await?;
        }
        let coordinate = {
            let (group, world, cooperative) =
                (Arc::clone(&self.group), Arc::clone(&self.world), self.scenario.cooperative);
            async move {
                group.coordinate(world, cooperative).await;
                Ok(())
            }
        };
        let coordinator = task::spawn(TaskKind::Background, "coordinator", coordinate);
        self.start();
        for _ in 0..self.scenario.steps {
            let pause = self.world.random().between(5, 600);
            self.world.clock.sleep(Duration::from_millis(pause)).await;
            let happening = self.choose();
            self.happen(happening).await?;
            self.upkeep();
            if !self.world.found().is_empty() {
                return Ok(0);
            }
        }
        self.settle().await?;
        coordinator.abort();
        verify::verify(&self.world, &self.stores, &self.operator, &self.scenario).await
    }

    fn choose(&self) -> Happening {
        let all: u64 = self.scenario.happenings.values().sum();
        let mut at = self.world.random().between(1, all);
        for (happening, weight) in &self.scenario.happenings {
            if at <= *weight {
                return *happening;
            }
            at -= weight;
        }
        Happening::Produce
    }

    async fn happen(&mut self, happening: Happening) -> Result<()> {
        match happening {
            Happening::Produce => self.produce(),
            Happening::Transaction | Happening::Compact | Happening::Retain | Happening::Elect => {
                self.change_log(happening);
            }
            Happening::Grow | Happening::Recreate => self.change_topic(happening),
            Happening::Rebalance => self.group.rebalance(),
            Happening::Start => {
                if self.replicas.len() < self.scenario.replicas {
                    self.start();
                }
            }
            Happening::Crash => {
                if let Some(name) = self.some_replica() {
                    self.crash(name);
                }
            }
            Happening::Stop => {
                if let Some(replica) = self.some_replica().and_then(|name| self.replicas.get(&name)) {
                    self.world.note(format!("{} is asked to end", replica.member.name));
                    replica.shutdown.request();
                }
            }
            Happening::Zombie => {
                if let Some(replica) = self.some_replica().and_then(|name| self.replicas.get(&name)) {
                    self.world.note(format!("{} is thought dead", replica.member.name));
                    self.group.remove(&replica.member);
                    let after = Duration::from_millis(self.world.random().between(1, 4000));
                    self.zombies.push((self.world.clock.elapsed() + after, Arc::clone(&replica.member)));
                }
            }
            Happening::Foreign => self.operator.foreign().await?,
            Happening::RollBack => self.operator.roll_back().await?,
            Happening::Attend => drop(self.operator.attend().await?),
        }
        Ok(())
    }

    fn some_replica(&self) -> Option<u64> {
        let names: Vec<u64> = self.replicas.keys().copied().collect();
        if names.is_empty() { None } else { Some(self.world.random().pick(&names)) }
    }

    /// A topic and one of its partitions.
    fn some_partition(&self) -> (String, usize) {
        let names = self.world.broker().names();
        let name = self.world.random().pick(&names);
        let partitions = self.world.broker().topic(&name).map_or(1, |topic| topic.partitions.len());
        (name, self.world.random().index(partitions))
    }

    fn produce(&mut self) {
        let bursts = self.world.random().between(1, 4);
        for _ in 0..bursts {
            let (name, n) = self.some_partition();
            let count = self.world.random().between(1, 25);
            let transactional = self.world.random().per_mille(500);
            for _ in 0..count {
                let record = self.producer.record(&self.world, &self.scenario);
                let mut broker = self.world.broker();
                if let Some(partition) = broker.topic_mut(&name).and_then(|topic| topic.partitions.get_mut(n)) {
                    partition.append(record, transactional);
                }
            }
        }
    }

    fn change_log(&mut self, happening: Happening) {
        let (name, n) = self.some_partition();
        let record = (happening == Happening::Transaction).then(|| self.producer.record(&self.world, &self.scenario));
        let mut broker = self.world.broker();
        let Some(partition) = broker.topic_mut(&name).and_then(|topic| topic.partitions.get_mut(n)) else { return };
        let mut random = self.world.random();
        match (happening, record) {
            (Happening::Transaction, Some(record)) => {
                if partition.open.is_some() && random.per_mille(700) {
                    partition.end(random.per_mille(500));
                } else {
                    partition.begin(record);
                }
            }
            (Happening::Compact, _) => {
                for _ in 0..5 {
                    let offset = random.between(0, partition.high() as u64);
                    partition.compact(offset as i64);
                }
            }
            (Happening::Retain, _) => {
                let high = partition.high() as u64;
                partition.retain_from(random.between(partition.low as u64, high) as i64);
            }
            _ => partition.elect(),
        }
        drop(random);
        drop(broker);
        self.world.note(format!("{happening:?} {name}[{n}]"));
    }

    fn change_topic(&mut self, happening: Happening) {
        let (name, _) = self.some_partition();
        self.world.note(format!("{happening:?} {name}"));
        let id = self.world.clock.fresh_id();
        let mut broker = self.world.broker();
        let Some(topic) = broker.topic_mut(&name) else { return };
        if happening == Happening::Grow {
            topic.grow();
        } else {
            let partitions = topic.partitions.len();
            broker.create(&name, id, partitions);
        }
        drop(broker);
        self.group.rebalance();
        self.produce();
    }

    /// A replica begins a life.
    fn start(&mut self) {
        self.lives += 1;
        let name = format!("r{}", self.lives);
        self.world.note(format!("{name} starts"));
        let world = Arc::clone(&self.world);
        let member = Member::new(name.clone(), Arc::clone(&world));
        let (asked, health) = (Arc::<Mutex<_>>::default(), Health::new());
        let faults = {
            let world = Arc::clone(&world);
            Arc::new(Mutex::new(move |request: &str| catalog_fault(&world, request)))
        };
        let catalog = WatchedCatalog {
            faulty: self.catalog.with_faults(faults),
            plain: self.catalog.clone(),
            world: Arc::clone(&world),
            member: Arc::clone(&member),
            table: self.spec.settings.table.clone(),
            asked: Arc::clone(&asked),
        };
        let options = LakeOptions { keep_snapshots: self.scenario.keep_snapshots, writer_bytes: 64 << 20 };
        let (stores, clock) = (self.stores.clone(), world.clock.clone());
        let lake = IcebergLake::new(Arc::new(catalog), stores, Compute::inline(), clock.clone(), &options);
        let lake = WatchedLake { lake, plain: self.catalog.clone(), world: Arc::clone(&world), name, asked };
        let (sender, events) = mpsc::channel(8);
        let poll = Arc::clone(&member).poll(sender).map(Ok);
        let mut others = vec![task::spawn(TaskKind::Background, "poll", poll)];
        let source: Arc<dyn Source> = Arc::<Member>::clone(&member);
        let (source, events) =
            if self.scenario.shared { self.share(source, events, &mut others) } else { (source, events) };
        let ports = Ports {
            seam: None,
            source,
            registry: Some(Arc::new(WatchedRegistry(Arc::clone(&world)))),
            lake: Arc::new(lake),
            clock,
            compute: Compute::inline(),
            health: health.clone(),
            metrics: Metrics::new(health.clone()).table(&self.spec.settings.table),
        };
        let shutdown = Shutdown::new();
        let driver = drive(Arc::clone(&world), Arc::clone(&self.spec), ports, events, shutdown.clone());
        let driver = task::spawn(TaskKind::Table, "driver", driver);
        self.group.join(Arc::clone(&member));
        self.replicas.insert(self.lives, Replica { member, health, shutdown, driver, others });
    }

    /// The same through a hub.
    fn share(
        &self,
        source: Arc<dyn Source>,
        events: mpsc::Receiver<SourceEvent>,
        others: &mut Vec<Task>,
    ) -> (Arc<dyn Source>, mpsc::Receiver<SourceEvent>) {
        let (shared, commands) = Shared::new(Arc::clone(&source));
        let hub = Hub::new(source, None, false, self.world.clock.clone());
        others.push(task::spawn(TaskKind::Table, "hub", hub.run(commands, events, Shutdown::new())));
        let (source, events) = shared.join(self.spec.settings.topics.clone(), Takes::All);
        (source, events)
    }

    /// A replica's process ends at once; the group notices later.
    fn crash(&mut self, name: u64) {
        let Some(replica) = self.replicas.remove(&name) else { return };
        self.world.note(format!("{} crashes", replica.member.name));
        replica.driver.abort();
        replica.others.iter().for_each(Task::abort);
        replica.member.end();
        self.dead.push((self.world.clock.elapsed() + SESSION, replica.member));
    }

    /// What happens because time has passed.
    fn upkeep(&mut self) {
        let now = self.world.clock.elapsed();
        for (_, member) in self.dead.extract_if(.., |(due, _)| *due <= now) {
            self.world.note(format!("{} is found dead", member.name));
            self.group.remove(&member);
        }
        for (_, member) in self.zombies.extract_if(.., |(due, _)| *due <= now) {
            if !member.is_gone() {
                self.world.note(format!("{} hears that it was thought dead", member.name));
                Group::tell_lost(&member);
                self.group.join(member);
            }
        }
        for (_, replica) in self.replicas.extract_if(.., |_, replica| replica.driver.is_finished()) {
            self.world.note(format!("{} has ended", replica.member.name));
            replica.others.iter().for_each(Task::abort);
            replica.member.end();
            self.group.remove(&replica.member);
        }
    }

    /// Nothing goes wrong any more: everything that is stable must be committed, then every replica must end.
    async fn settle(&mut self) -> Result<()> {
        self.world.calm_down();
        self.world.note("calm");
        self.catalog.land_held();
        let names = self.world.broker().names();
        for name in names {
            let mut broker = self.world.broker();
            let Some(topic) = broker.topic_mut(&name) else { continue };
            topic.partitions.iter_mut().for_each(|partition| partition.end(true));
        }
        // An operator who has read why the table stopped sets the policies that let it go on.
        if *self.spec != *self.scenario.permissive() {
            let all: Vec<u64> = self.replicas.keys().copied().collect();
            for name in all {
                self.crash(name);
            }
            self.spec = self.scenario.permissive();
        }
        if self.replicas.is_empty() {
            self.start();
        }
        let deadline = self.world.clock.elapsed() + SETTLED_BY;
        while !self.operator.is_settled().await {
            if self.world.clock.elapsed() > deadline {
                let conditions =
                    self.replicas.values().map(|replica| format!("{:?}", replica.health.snapshot().tables));
                return Err(Error::bug(format!(
                    "not everything is committed: {}",
                    conditions.collect::<Vec<_>>().join("; ")
                )));
            }
            self.world.clock.sleep(Duration::from_millis(700)).await;
            self.operator.attend().await?;
            self.upkeep();
            if self.replicas.is_empty() {
                self.start();
            }
            if !self.world.found().is_empty() {
                return Ok(());
            }
        }
        self.replicas.values().for_each(|replica| replica.shutdown.request());
        for replica in self.replicas.values_mut() {
            if self.world.clock.timeout(ENDED_BY, replica.driver.join()).await.is_none() {
                return Err(Error::bug(format!("{} does not end", replica.member.name)));
            }
            replica.others.iter().for_each(Task::abort);
        }
        Ok(())
    }
}

/// The real driver; how it ends is part of what is judged.
async fn drive(
    world: Arc<World>,
    spec: Arc<TableSpec>,
    ports: Ports,
    events: mpsc::Receiver<SourceEvent>,
    shutdown: Shutdown,
) -> Result<()> {
    let (state, _states) = watch::channel(None);
    match AssertUnwindSafe(driver::run(spec, ports, events, state, shutdown)).catch_unwind().await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => world.wrong(error.chain()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            world.wrong(format!("panic: {}", text.unwrap_or_default()));
        }
    }
    Ok(())
}
