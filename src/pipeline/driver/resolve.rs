//! Decoding with everything that it needs from outside: schemas by id, formats decided, columns added.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Mutex;

use super::epoch::SealedFiles;
use super::shown::Shown;
use super::{Ports, TableSpec, waits};
use crate::decode::avro::schema::{Schema, parse};
use crate::decode::layout::{Format, KeyColumns, Side, extended};
use crate::decode::{Decoder, Decoding, SchemaUse, Sides, wire_schema_id};
use crate::error::Result;
use crate::model::decoded::{DecodedBatch, Reason};
use crate::model::raw::RawBatch;
use crate::model::schema::{TableSchema, Type};
use crate::pipeline::event::{CommitPlan, On};
use crate::ports::{CommitRequest, Recovery, RegisteredSchema, SchemaFormat, TableState};
use crate::runtime::backoff::Backoff;
use crate::runtime::crash;

/// How long "the registry knows no such schema" is believed.
const UNKNOWN_SCHEMA_BELIEVED: Duration = Duration::from_secs(10);
/// Schema ids of a table's first batch that are looked up to decide what `auto` is: bytes that are no schema ids may
/// look like many.
const IDS_TRIED_MAX: usize = 16;

/// What became of a raw batch.
pub(super) enum Decoded {
    /// Every record is decided.
    Rows(DecodedBatch),
    /// Its schema cannot be brought into the table's.
    Misfit(String),
}

/// One side's registered schema, as far as columns go.
#[derive(Debug, Clone)]
pub(super) enum Registered {
    Avro(Arc<Schema>),
    Column(Type),
}

impl Registered {
    pub(super) fn side(&self) -> Side<'_> {
        match self {
            Self::Avro(schema) => Side::Avro(schema),
            Self::Column(kind) => Side::Column(kind),
        }
    }
}

/// Knows how to decode a table's batches, and learns what it lacks.
pub(super) struct Resolver {
    pub(super) spec: Arc<TableSpec>,
    pub(super) ports: Ports,
    pub(super) shown: Shown,
    /// False for a reader: it waits for the columns that whoever commits adds.
    adds_columns: bool,
    current: RwLock<Option<Arc<Current>>>,
    learning: Mutex<()>,
}

#[derive(Clone)]
struct Current {
    state: TableState,
    decoder: Arc<Decoder>,
    sides: Sides,
    schemas: HashMap<u32, SchemaUse>,
    /// When schema ids that the registry does not know are to be asked for again.
    forget_at: Option<Duration>,
    /// The newest schemas seen, for columns of the other side.
    value: Option<Registered>,
}

impl Resolver {
    pub(super) fn new(spec: Arc<TableSpec>, ports: Ports) -> Self {
        let shown = Shown::new(spec.settings.table.clone(), ports.health.clone(), ports.clock.clone());
        Self { spec, ports, shown, adds_columns: true, current: RwLock::new(None), learning: Mutex::new(()) }
    }

    /// One that changes nothing.
    pub(super) fn reader(spec: Arc<TableSpec>, ports: Ports) -> Self {
        Self { adds_columns: false, ..Self::new(spec, ports) }
    }

    fn current(&self) -> Option<Arc<Current>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, current: Current) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(current));
    }

    /// Takes note of a newer state of the table.
    pub(super) fn seen(&self, state: &TableState) {
        if let Some(current) = self.current() {
            let schema_is_same = current.state.schema == state.schema;
            let current = Current { state: state.clone(), ..Current::clone(&current) };
            self.set(if schema_is_same { current } else { self.rebuilt(current) });
        }
    }

    /// The newest state of the table seen.
    pub(super) fn state(&self) -> Option<TableState> {
        self.current().map(|current| current.state.clone())
    }

    /// Takes a table as surveyed. Formats that are left open are decided where subjects or columns decide them.
    pub(super) async fn adopt(&self, state: &TableState) -> Result<()> {
        if self.current().is_some() {
            self.seen(state);
            return Ok(());
        }
        let (key, value) = self.registered().await?;
        let layout = &self.spec.layout;
        let plain = |name: &str| state.schema.field(name).map(|field| &field.kind);
        let decide =
            |format: Format, registered: &Option<Registered>, column: Option<&Type>| match (format, registered, column)
            {
                (Format::Auto, Some(Registered::Avro(_)), _) => Format::Registry,
                (Format::Auto, _, Some(Type::Binary)) => Format::Bytes,
                (Format::Auto, _, _) if self.ports.registry.is_none() => Format::Bytes,
                (format, _, _) => format,
            };
        let sides = Sides {
            key: decide(layout.key_format, &key, plain("key")),
            value: decide(layout.value_format, &value, plain("value")),
        };
        let decoder =
            Arc::new(Decoder::new(Arc::new(layout.clone()), Arc::clone(&state.schema), sides, HashMap::new()));
        self.set(Current { state: state.clone(), decoder, sides, schemas: HashMap::new(), forget_at: None, value });
        Ok(())
    }

    /// Key and value schemas as the registry's subjects have them now, where the format asks for them.
    pub(super) async fn registered(&self) -> Result<(Option<Registered>, Option<Registered>)> {
        let layout = &self.spec.layout;
        let key = match layout.key_columns {
            KeyColumns::None => None,
            KeyColumns::Raw => Some(Registered::Column(Type::Binary)),
            KeyColumns::Flatten | KeyColumns::Struct => self.registered_side(layout.key_format, "key").await?,
        };
        Ok((key, self.registered_side(layout.value_format, "value").await?))
    }

    async fn registered_side(&self, format: Format, side: &str) -> Result<Option<Registered>> {
        match format {
            Format::None => return Ok(None),
            Format::String => return Ok(Some(Registered::Column(Type::String))),
            Format::Bytes => return Ok(Some(Registered::Column(Type::Binary))),
            Format::Auto | Format::Registry => {}
        }
        let (Some(registry), Some(topic)) = (&self.ports.registry, self.spec.settings.topics.first()) else {
            return Ok(None);
        };
        let Some(found) = registry.latest(&format!("{topic}-{side}")).await? else { return Ok(None) };
        Ok(match read(&found) {
            SchemaUse::Known(schema) => Some(Registered::Avro(schema)),
            SchemaUse::Rejected(..) => None,
        })
    }

    /// Decides every record of `batch`, whatever must be looked up or added to the table for it.
    pub(super) async fn decode(&self, mut batch: RawBatch) -> Result<Decoded> {
        loop {
            let Some(current) = self.fresh() else {
                return Err(crate::error::Error::bug("decode before the table was seen"));
            };
            let incarnation = incarnation(&current.state, &batch.source.topic);
            let decoder = Arc::clone(&current.decoder);
            let clock = self.ports.clock.clone();
            let (decoding, took) = self
                .ports
                .compute
                .run(move || {
                    let begun = clock.elapsed();
                    let decoding = decoder.decode(batch, incarnation);
                    (decoding, clock.elapsed().saturating_sub(begun))
                })
                .await?;
            self.ports.metrics.decode_seconds.inc_by(took.as_secs_f64());
            match decoding? {
                Decoding::Done(rows) => return Ok(Decoded::Rows(rows)),
                Decoding::Needs { batch: same, ids, key_undecided, value_undecided } => {
                    batch = same;
                    if let Err(misfit) = self.learn(&batch, ids, key_undecided, value_undecided).await? {
                        return Ok(Decoded::Misfit(misfit));
                    }
                }
            }
        }
    }

    /// What is known, less what has been believed for too long.
    fn fresh(&self) -> Option<Arc<Current>> {
        let current = self.current()?;
        if current.forget_at.is_none_or(|at| at > self.ports.clock.elapsed()) {
            return Some(current);
        }
        let mut current = Current::clone(&current);
        current.schemas.retain(|_, known| !matches!(known, SchemaUse::Rejected(Reason::UnknownSchemaId, _)));
        current.forget_at = None;
        self.set(self.rebuilt(current));
        self.current()
    }

    fn rebuilt(&self, mut current: Current) -> Current {
        let layout = Arc::new(self.spec.layout.clone());
        let table = Arc::clone(&current.state.schema);
        current.decoder = Arc::new(Decoder::new(layout, table, current.sides, current.schemas.clone()));
        current
    }

    /// Looks up what a batch needs. The inner error is why its schema does not fit the table.
    async fn learn(
        &self,
        batch: &RawBatch,
        ids: BTreeSet<u32>,
        key_undecided: bool,
        value_undecided: bool,
    ) -> Result<Result<(), String>> {
        let _one_at_a_time = self.learning.lock().await;
        let Some(current) = self.current() else { return Ok(Ok(())) };
        let mut current = Current::clone(&current);
        if value_undecided && current.sides.value == Format::Auto {
            current.sides.value = self.format_of("value", batch.records.iter().filter_map(|r| batch.value(r))).await?;
        }
        if key_undecided && current.sides.key == Format::Auto {
            current.sides.key = self.format_of("key", batch.records.iter().filter_map(|r| batch.key(r))).await?;
        }
        for id in ids {
            if !current.schemas.contains_key(&id) {
                let known = self.look_up(id).await?;
                if matches!(known, SchemaUse::Rejected(Reason::UnknownSchemaId, _)) {
                    current.forget_at.get_or_insert(self.ports.clock.elapsed() + UNKNOWN_SCHEMA_BELIEVED);
                }
                current.schemas.insert(id, known);
            }
        }
        let misfit = self.fit(&mut current, batch).await?;
        // A commit may have ended meanwhile; its state is newer, unless columns were added after it.
        if let Some(now) = self.current().filter(|now| now.state.schema.schema_id >= current.state.schema.schema_id) {
            current.state = now.state.clone();
        }
        self.set(self.rebuilt(current));
        Ok(misfit.map_or(Ok(()), Err))
    }

    /// The format that `auto` stands for, for good: the registry's where one of these values carries an id that it
    /// knows or where it has a subject for this side of the topic, else bytes.
    async fn format_of(&self, side: &str, values: impl Iterator<Item = &[u8]>) -> Result<Format> {
        let ids: BTreeSet<u32> = values.filter_map(wire_schema_id).collect();
        let (mut format, mut because) = (Format::Bytes, "no value carries a schema id that the registry knows");
        for id in ids.into_iter().take(IDS_TRIED_MAX) {
            if !matches!(self.look_up(id).await?, SchemaUse::Rejected(Reason::UnknownSchemaId, _)) {
                (format, because) = (Format::Registry, "a value carries a schema id that the registry knows");
                break;
            }
        }
        if format == Format::Bytes
            && self.patiently(On::Registry, || self.registered_side(Format::Registry, side)).await?.is_some()
        {
            (format, because) = (Format::Registry, "the registry has a subject for it");
        }
        tracing::info!(table = %self.spec.settings.table, side, ?format, because, "format `auto` is decided");
        Ok(format)
    }

    async fn look_up(&self, id: u32) -> Result<SchemaUse> {
        let unknown = || SchemaUse::Rejected(Reason::UnknownSchemaId, format!("the registry knows no schema {id}"));
        let Some(registry) = &self.ports.registry else { return Ok(unknown()) };
        let found = self.patiently(On::Registry, || registry.schema(id)).await?;
        Ok(found.map_or_else(unknown, |found| read(&found)))
    }

    /// Adds the columns that the batch's schemas need and the table lacks.
    async fn fit(&self, current: &mut Current, batch: &RawBatch) -> Result<Option<String>> {
        let mut seen = BTreeSet::new();
        for record in &batch.records {
            let id = |format: Format, bytes: Option<&[u8]>| {
                bytes.filter(|_| format == Format::Registry).and_then(wire_schema_id)
            };
            let key_read = matches!(self.spec.layout.key_columns, KeyColumns::Flatten | KeyColumns::Struct);
            let key = id(current.sides.key, batch.key(record).filter(|_| key_read));
            let value = id(current.sides.value, batch.value(record));
            seen.insert((key, batch.key(record).is_some(), value, batch.value(record).is_some()));
        }
        for (key, has_key, value, has_value) in seen {
            let value = match column_side(current, current.sides.value, value, has_value) {
                Some(value) => {
                    current.value = Some(value.clone());
                    Some(value)
                }
                None => current.value.clone(),
            };
            let key_format =
                if self.spec.layout.key_columns == KeyColumns::Raw { Format::Bytes } else { current.sides.key };
            let key =
                column_side(current, key_format, key, has_key && self.spec.layout.key_columns != KeyColumns::None);
            let side = |side| Option::as_ref(side).map_or(Side::Nothing, Registered::side);
            let Ok(wanted) = self.spec.layout.table_schema(side(&key), side(&value)) else { continue };
            match extended(&current.state.schema, &wanted, &self.spec.layout) {
                Ok(None) => {}
                Ok(Some(_)) if !self.adds_columns => return Ok(Some("columns are not there yet".to_owned())),
                Ok(Some(schema)) => {
                    self.evolve(current, &schema).await?;
                }
                Err(misfit) => return Ok(Some(misfit)),
            }
        }
        Ok(None)
    }

    async fn evolve(&self, current: &mut Current, wanted: &TableSchema) -> Result<()> {
        let table = &self.spec.settings.table;
        let lake = &self.ports.lake;
        current.state = self.patiently(On::Catalog, || lake.evolve(table, wanted)).await?;
        tracing::info!(%table, schema_id = current.state.schema.schema_id, "columns added");
        crash::point(crash::SCHEMA_EVOLVED);
        Ok(())
    }

    /// Tries until it succeeds or fails for good, showing what the table waits for.
    pub(super) async fn patiently<T, F: Future<Output = Result<T>>>(&self, on: On, call: impl Fn() -> F) -> Result<T> {
        let mut backoff = Backoff::service();
        loop {
            match call().await {
                Err(error) if waits(&error) => {
                    self.shown.waits(on, error.chain());
                    self.ports.clock.sleep(backoff.pause()).await;
                }
                result => {
                    self.shown.goes_on();
                    return result;
                }
            }
        }
    }

    /// The request that commits `files` with `plan`; `None` before the table was seen.
    pub(super) fn request(&self, plan: CommitPlan, files: SealedFiles) -> Option<CommitRequest> {
        let state = self.state()?;
        let schema = files.schema.unwrap_or_else(|| Arc::clone(&state.schema));
        Some(CommitRequest {
            id: files.commit,
            table: state.table,
            table_uuid: state.uuid,
            schema,
            advances: plan.advances,
            identity: plan.identity,
            files: files.files,
            dead_letters: files.dead_letters,
            suspension: plan.suspension,
            gaps: plan.gaps,
            newest_ms: plan.newest_ms,
            conflicts: Arc::default(),
        })
    }
}

/// What one side of a record needs of columns; `None` where nothing is known of it.
fn column_side(current: &Current, format: Format, id: Option<u32>, present: bool) -> Option<Registered> {
    match (format, id) {
        (_, Some(id)) => match current.schemas.get(&id)? {
            SchemaUse::Known(schema) => Some(Registered::Avro(Arc::clone(schema))),
            SchemaUse::Rejected(..) => None,
        },
        (Format::String, None) if present => Some(Registered::Column(Type::String)),
        (Format::Bytes, None) if present => Some(Registered::Column(Type::Binary)),
        _ => None,
    }
}

fn incarnation(state: &TableState, topic: &str) -> i32 {
    let Recovery::At(progress) = &state.recovery else { return 0 };
    let topic = progress.ledger.topics.get(topic);
    topic.map_or(0, |topic| i32::try_from(topic.incarnation).unwrap_or(i32::MAX))
}

fn read(found: &RegisteredSchema) -> SchemaUse {
    if found.format != SchemaFormat::Avro {
        let message = format!("schema {} is {:?}, which cannot be read yet", found.id, found.format);
        return SchemaUse::Rejected(Reason::IncompatibleSchema, message);
    }
    match parse(found) {
        Ok(schema) => SchemaUse::Known(Arc::new(schema)),
        Err(error) => SchemaUse::Rejected(Reason::IncompatibleSchema, error.chain()),
    }
}
