//! Which table a record belongs to: the value that the route goes by.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::split::part;
use crate::decode::SchemaKey;
use crate::decode::naming::{Named, Schemas, record_name};
use crate::decode::schema::Schema;
use crate::error::{Error, ErrorKind, Result};
use crate::model::raw::RawBatch;
use crate::ports::Registry;
use crate::runtime::clock::Clock;
use crate::runtime::compute::Compute;

/// How long "the registry knows no such schema" is believed.
const UNKNOWN_SCHEMA_BELIEVED: std::time::Duration = std::time::Duration::from_secs(10);

/// What the route goes by.
#[derive(Clone)]
pub enum By {
    /// The full name of the value's type in the schema registry.
    RecordName,
    /// The text of the last header of this name.
    Header(String),
    /// The text of a field of the value.
    Field(Arc<dyn FieldTexts>),
}

/// Reads the field that a route goes by.
#[async_trait]
pub trait FieldTexts: Send + Sync {
    /// Per record of `batch` what the field says; `None` where it has none, or none that is text, a whole number or a
    /// boolean.
    ///
    /// # Errors
    /// `Unavailable`, `Denied` where the registry does not answer.
    async fn texts(&self, batch: RawBatch) -> Result<Vec<Option<Arc<str>>>>;
}

/// Finds the values of records.
pub struct Classifier {
    by: By,
    registry: Option<Arc<dyn Registry>>,
    compute: Compute,
    clock: Clock,
    schemas: Arc<Schemas>,
    /// When schemas that cannot be used are to be asked for again.
    forget_at: Option<std::time::Duration>,
}

/// The values of a batch's records.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Classes {
    /// Each value once.
    pub(super) values: Vec<Arc<str>>,
    /// Per record the index of its value, one more than it is; 0 for none.
    of: Vec<usize>,
}

impl Classes {
    /// By the values of all records in order, up to the first error.
    fn of<'a, E>(records: impl ExactSizeIterator<Item = Result<Option<&'a str>, E>>) -> Result<Self, E> {
        let mut classes = Self { values: Vec::new(), of: Vec::with_capacity(records.len()) };
        let mut known: HashMap<&str, usize> = HashMap::new();
        for value in records {
            let class = value?.map_or(0, |value| {
                *known.entry(value).or_insert_with(|| {
                    classes.values.push(value.into());
                    classes.values.len()
                })
            });
            classes.of.push(class);
        }
        Ok(classes)
    }

    /// Per value, and first for none, the indexes of its records.
    pub(super) fn records(&self) -> Vec<Vec<usize>> {
        let mut all = vec![Vec::new(); self.values.len() + 1];
        for (record, class) in self.of.iter().enumerate() {
            all[*class].push(record);
        }
        all
    }
}

impl Classifier {
    /// One that goes by `by`; record names need the registry.
    ///
    /// # Errors
    /// `InvalidConfig` where there is none.
    pub fn new(by: By, registry: Option<Arc<dyn Registry>>, compute: Compute, clock: Clock) -> Result<Self> {
        if matches!(by, By::RecordName) && registry.is_none() {
            return Err(Error::invalid_config(
                "`{record_name}` asks the schema registry, and there is no `schema_registry`; add its `url`",
            ));
        }
        Ok(Self { by, registry, compute, clock, schemas: Arc::default(), forget_at: None })
    }

    /// The batch, once its values are found.
    pub(super) fn release(batch: Arc<RawBatch>) -> RawBatch {
        // The scan is over, so nobody else holds it.
        let copied = |batch: Arc<RawBatch>| part(&batch, batch.records.iter(), batch.first, batch.first, batch.attempt);
        Arc::try_unwrap(batch).unwrap_or_else(copied)
    }

    /// The values of `batch`'s records.
    ///
    /// # Errors
    /// `Unavailable`, `Denied` where the registry does not answer.
    pub(super) async fn classify(&mut self, batch: &Arc<RawBatch>) -> Result<Classes> {
        if let By::Field(field) = &self.by {
            let whole = part(batch, batch.records.iter(), batch.first, batch.first, batch.attempt);
            let texts = field.texts(whole).await?;
            return Classes::of(texts.iter().map(|text| Ok(text.as_deref())));
        }
        self.forget();
        loop {
            let (batch, by, schemas) = (Arc::clone(batch), self.by.clone(), Arc::clone(&self.schemas));
            match self.compute.run(move || scan(&by, &schemas, &batch)).await? {
                Ok(classes) => return Ok(classes),
                Err(key) => {
                    let schema = self.look_up(key).await?;
                    if schema.is_none() {
                        self.forget_at.get_or_insert(self.clock.elapsed() + UNKNOWN_SCHEMA_BELIEVED);
                    }
                    Arc::make_mut(&mut self.schemas).insert(key, schema);
                }
            }
        }
    }

    fn forget(&mut self) {
        if self.forget_at.take_if(|at| *at <= self.clock.elapsed()).is_some() {
            Arc::make_mut(&mut self.schemas).retain(|_, schema| schema.is_some());
        }
    }

    async fn look_up(&self, key: SchemaKey) -> Result<Option<Arc<Schema>>> {
        let Some(registry) = &self.registry else { return Ok(None) };
        let found = match key {
            SchemaKey::Id(id) => registry.schema(id).await,
            SchemaKey::Guid(guid) => registry.schema_by_guid(uuid::Uuid::from_u128(guid)).await,
            SchemaKey::OfKeys | SchemaKey::OfValues => Ok(None),
        };
        match found {
            Ok(found) => Ok(found.and_then(|found| Schema::parse(&found).ok()).map(Arc::new)),
            Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Denied) => Err(error),
            // What the registry holds cannot be understood: its records are decided by the table that takes them.
            Err(_) => Ok(None),
        }
    }
}

/// The classes, or a schema that is to be looked up for them.
fn scan(by: &By, schemas: &Schemas, batch: &RawBatch) -> Result<Classes, SchemaKey> {
    Classes::of(batch.records.iter().map(|record| match by {
        By::RecordName => match record_name(schemas, batch, record) {
            Named::Name(name) => Ok(Some(name)),
            Named::By(key) => Err(key),
            Named::Nothing => Ok(None),
        },
        By::Header(name) => {
            let last = batch.headers(record).filter(|(key, _)| *key == name.as_bytes()).last();
            let text = last.and_then(|(_, value)| std::str::from_utf8(value?).ok());
            Ok(text.filter(|text| !text.is_empty()))
        }
        By::Field(_) => Ok(None),
    }))
}
