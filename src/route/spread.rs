//! A route's tables as they come: which value has one, which is being made, and what waits for it.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::classify::{Classes, Classifier};
use super::{MemberId, Tables};
use crate::error::{Error, Result};
use crate::model::ids::TopicPartition;
use crate::model::raw::RawBatch;
use crate::ports::Charge;
use crate::runtime::backoff::Backoff;
use crate::runtime::clock::Clock;

/// Tables of one route; what would be one more goes to the route's own table. A value that is as good as unique is a slip.
const TABLES_MAX: usize = 1000;

pub(super) type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// How records are spread over tables that are made as they come.
pub struct Route {
    /// Which value a record has.
    pub classifier: Classifier,
    /// Its tables.
    pub tables: Arc<dyn Tables>,
    /// The topics that it spreads.
    pub topics: Vec<String>,
}

/// A batch that is to be given next, and the values of its records.
pub(super) struct Head {
    pub(super) batch: RawBatch,
    pub(super) charge: Charge,
    pub(super) classes: Classes,
}

/// A route at work.
pub(super) struct Spread {
    tables: Arc<dyn Tables>,
    topics: Vec<String>,
    clock: Clock,
    /// True once the catalog has said which tables there are.
    pub(super) has_looked: bool,
    members: HashMap<Arc<str>, MemberId>,
    /// Values whose table is asked to join.
    joining: HashSet<Arc<str>>,
    /// Values whose table is not known to have a ledger: what lies behind one of their records is given to nobody.
    opening: HashSet<Arc<str>>,
    is_full: bool,
    /// `None` while a batch is being classified.
    classifier: Option<Classifier>,
    classifying: Option<Work<(Classifier, Head)>>,
    looking: Option<Work<Vec<(String, bool)>>>,
    asking: Option<Work<()>>,
}

impl Spread {
    pub(super) fn new(route: Route, clock: Clock) -> Self {
        let mut spread = Self {
            tables: route.tables,
            topics: route.topics,
            clock,
            has_looked: false,
            members: HashMap::new(),
            joining: HashSet::new(),
            opening: HashSet::new(),
            is_full: false,
            classifier: Some(route.classifier),
            classifying: None,
            looking: None,
            asking: None,
        };
        spread.look();
        spread
    }

    /// Whether it spreads that topic.
    pub(super) fn takes(&self, source: &TopicPartition) -> bool {
        self.topics.iter().any(|topic| **topic == *source.topic)
    }

    /// The table of a value, once it has joined.
    pub(super) fn member(&self, value: &str) -> Option<MemberId> {
        self.members.get(value).copied()
    }

    /// The table of `value` takes its records from now on.
    pub(super) fn joined(&mut self, value: &Arc<str>, id: MemberId) {
        self.joining.remove(value);
        self.members.insert(Arc::clone(value), id);
    }

    pub(super) fn left(&mut self, value: &Arc<str>) {
        self.members.remove(value);
        self.opening.remove(value);
    }

    /// The table of `value` begins to read, which comes after its first commit: it has a ledger.
    pub(super) fn began(&mut self, value: &Arc<str>) {
        self.opening.remove(value);
    }

    /// Whether a batch is being classified.
    pub(super) fn is_busy(&self) -> bool {
        self.classifying.is_some()
    }

    /// Asks the catalog for tables, unless that is being done.
    pub(super) fn look(&mut self) {
        if self.looking.is_none() {
            let (tables, clock) = (Arc::clone(&self.tables), self.clock.clone());
            self.looking = Some(Box::pin(async move { patiently(&*tables, &clock, || tables.known()).await }));
        }
    }

    /// Finds the values of a batch's records; [`Spread::next`] has them.
    pub(super) fn classify(&mut self, batch: RawBatch, charge: Charge) -> Result<()> {
        let Some(mut classifier) = self.classifier.take() else {
            return Err(Error::bug("a batch is classified beside another"));
        };
        let (tables, clock) = (Arc::clone(&self.tables), self.clock.clone());
        self.classifying = Some(Box::pin(async move {
            let batch = Arc::new(batch);
            let mut waiting = Waiting::new(&*tables, &clock);
            let classes = loop {
                match classifier.classify(&batch).await {
                    Ok(classes) => break classes,
                    Err(error) => waiting.pause(&error).await,
                }
            };
            waiting.over();
            (classifier, Head { batch: Classifier::release(batch), charge, classes })
        }));
        Ok(())
    }

    /// What is ready next: a batch to give, or `None` where only something inside has changed.
    pub(super) async fn next(&mut self) -> Option<Head> {
        tokio::select! {
            (classifier, head) = pending(&mut self.classifying) => {
                self.classifying = None;
                self.classifier = Some(classifier);
                Some(head)
            }
            found = pending(&mut self.looking) => {
                self.looking = None;
                self.has_looked = true;
                self.found(found);
                None
            }
            () = pending(&mut self.asking) => {
                self.asking = None;
                None
            }
        }
    }

    /// Takes up tables that the catalog has.
    fn found(&mut self, found: Vec<(String, bool)>) {
        let mut values = Vec::new();
        for (value, has_ledger) in found {
            let value: Arc<str> = value.into();
            if self.is_unknown(&value) {
                if !has_ledger {
                    self.opening.insert(Arc::clone(&value));
                }
                values.push(value);
            }
        }
        self.ask(values);
    }

    fn is_unknown(&self, value: &Arc<str>) -> bool {
        !self.members.contains_key(value) && !self.joining.contains(value)
    }

    /// Whether all these values have a table with a ledger; those that have none get one.
    pub(super) fn is_open(&mut self, values: &[Arc<str>]) -> bool {
        let room = TABLES_MAX.saturating_sub(self.members.len() + self.joining.len());
        let fresh: Vec<_> = values.iter().filter(|value| self.is_unknown(value)).cloned().collect();
        if fresh.len() > room && !std::mem::replace(&mut self.is_full, true) {
            let text = "a route has as many tables as it may have; records of further values go to its own table";
            tracing::warn!(tables = TABLES_MAX, "{text}");
        }
        let fresh: Vec<_> = fresh.into_iter().take(room).collect();
        if self.asking.is_none() && !fresh.is_empty() {
            self.opening.extend(fresh.iter().cloned());
            self.ask(fresh.clone());
        }
        let is_ready = |value: &Arc<str>| !self.joining.contains(value) && !self.opening.contains(value);
        fresh.is_empty() && values.iter().all(is_ready)
    }

    /// Has tables join, one after the other.
    fn ask(&mut self, values: Vec<Arc<str>>) {
        if values.is_empty() {
            return;
        }
        self.joining.extend(values.iter().cloned());
        let (tables, clock, before) = (Arc::clone(&self.tables), self.clock.clone(), self.asking.take());
        self.asking = Some(Box::pin(async move {
            if let Some(before) = before {
                before.await;
            }
            for value in values {
                patiently(&*tables, &clock, || tables.open(&value)).await;
            }
        }));
    }
}

/// Says what is waited for, and when that is over.
struct Waiting<'a> {
    tables: &'a dyn Tables,
    clock: &'a Clock,
    backoff: Backoff,
    waits: bool,
}

impl<'a> Waiting<'a> {
    fn new(tables: &'a dyn Tables, clock: &'a Clock) -> Self {
        Self { tables, clock, backoff: Backoff::service(), waits: false }
    }

    async fn pause(&mut self, error: &Error) {
        self.waits = true;
        self.tables.waits(Some(error.chain()));
        self.clock.sleep(self.backoff.pause()).await;
    }

    fn over(self) {
        if self.waits {
            self.tables.waits(None);
        }
    }
}

/// Tries until it succeeds.
async fn patiently<T, F: Future<Output = Result<T>>>(tables: &dyn Tables, clock: &Clock, work: impl Fn() -> F) -> T {
    let mut waiting = Waiting::new(tables, clock);
    loop {
        match work().await {
            Ok(done) => {
                waiting.over();
                return done;
            }
            Err(error) => waiting.pause(&error).await,
        }
    }
}

/// The work's output, or never where there is none.
async fn pending<T>(work: &mut Option<Work<T>>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}
