//! What the parts of one simulation share: time, chance, the broker, the trace, and what was found to be wrong.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::broker::Broker;
use super::history::History;
use super::random::Random;
use crate::error::{Error, Result};
use crate::ports::RegisteredSchema;
use crate::runtime::clock::Clock;

/// Events kept for a failure's report.
const TRACE_KEPT: usize = 150;

/// Faults kept for a failure's report.
const WRONG_KEPT: usize = 12;

/// Shared by everything in a simulation.
pub struct World {
    /// Simulated time.
    pub clock: Clock,
    random: Mutex<Random>,
    trace: Mutex<Trace>,
    /// Kafka's logs.
    pub broker: Mutex<Broker>,
    /// The registry's schemas, by id.
    pub schemas: Mutex<BTreeMap<u32, Arc<RegisteredSchema>>>,
    /// What the table has been.
    pub history: Mutex<History>,
    calm: AtomicBool,
    fault_per_mille: u64,
    wrong: Mutex<Vec<String>>,
}

struct Trace {
    hash: u64,
    events: u64,
    last: VecDeque<String>,
}

impl World {
    /// A world without topics.
    #[must_use]
    pub fn new(seed: u64, random: Random, fault_per_mille: u64) -> Arc<Self> {
        Arc::new(Self {
            clock: Clock::simulated(seed),
            random: Mutex::new(random),
            trace: Mutex::new(Trace { hash: 0xcbf2_9ce4_8422_2325, events: 0, last: VecDeque::new() }),
            broker: Mutex::default(),
            schemas: Mutex::default(),
            history: Mutex::default(),
            calm: AtomicBool::new(false),
            fault_per_mille,
            wrong: Mutex::default(),
        })
    }

    /// The generator.
    pub fn random(&self) -> MutexGuard<'_, Random> {
        lock(&self.random)
    }

    /// The logs.
    pub fn broker(&self) -> MutexGuard<'_, Broker> {
        lock(&self.broker)
    }

    /// What the table has been.
    pub fn history(&self) -> MutexGuard<'_, History> {
        lock(&self.history)
    }

    /// From now on nothing goes wrong by itself.
    pub fn calm_down(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    /// True once nothing goes wrong by itself.
    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    /// True where the next request is to fail.
    pub fn fails(&self) -> bool {
        !self.is_calm() && self.random().per_mille(self.fault_per_mille)
    }

    /// Waits as long as a request to somewhere takes, at most `most_ms`.
    pub async fn travel(&self, most_ms: u64) {
        let pause = self.random().between(0, if self.is_calm() { 2 } else { most_ms });
        self.clock.sleep(Duration::from_millis(pause)).await;
    }

    /// A request to somewhere, which may fail.
    ///
    /// # Errors
    /// `Unavailable`.
    pub async fn request(&self, what: &str) -> Result<()> {
        self.travel(20).await;
        if self.fails() { Err(Error::unavailable(format!("{what} does not answer"))) } else { Ok(()) }
    }

    /// Notes an event.
    pub fn note(&self, event: impl AsRef<str>) {
        let mut line = format!("{:>9.3} ", self.clock.elapsed().as_secs_f64());
        let _ = line.write_str(event.as_ref());
        let mut trace = lock(&self.trace);
        for byte in line.bytes() {
            trace.hash = (trace.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        trace.events += 1;
        if trace.last.len() == TRACE_KEPT {
            trace.last.pop_front();
        }
        trace.last.push_back(line);
    }

    /// Notes that something is wrong.
    pub fn wrong(&self, what: impl Into<String>) {
        let what = what.into();
        let mut wrong = lock(&self.wrong);
        // What is wrong once is often wrong everywhere.
        if wrong.len() < WRONG_KEPT {
            self.note(format!("WRONG: {what}"));
            wrong.push(what);
        }
    }

    /// What was found to be wrong so far.
    pub fn found(&self) -> Vec<String> {
        lock(&self.wrong).clone()
    }

    /// A hash over all events, their number, and the last of them.
    pub fn trace(&self) -> (u64, u64, Vec<String>) {
        let trace = lock(&self.trace);
        (trace.hash, trace.events, trace.last.iter().cloned().collect())
    }
}

/// The lock, whoever panicked with it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
