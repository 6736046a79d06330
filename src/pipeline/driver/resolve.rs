//! Decoding with everything that it needs from outside: schemas by id, formats decided, columns added.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::epoch::SealedFiles;
use super::filter::Planned;
use super::shown::Shown;
use super::takeover::layout_for;
use super::{Ports, TableSpec, waits};
use crate::decode::evolution::{Side, wanted};
use crate::decode::layout::{Format, KeyColumns, Layout};
use crate::decode::schema::{Columns, Schema};
use crate::decode::{Decoder, Decoding, MessagePath, Needs, SchemaKey, SchemaUse, Sides, wire_schema_id};
use crate::error::Result;
use crate::model::decoded::{DecodedBatch, Reason};
use crate::model::mapping::{AUTO_KEY, AUTO_VALUE};
use crate::model::raw::RawBatch;
use crate::model::schema::{TableSchema, Type};
use crate::pipeline::event::{CommitPlan, On};
use crate::ports::{CommitRequest, Recovery, TableState};
use crate::runtime::backoff::Backoff;
use crate::runtime::crash;

/// How long "the registry knows no such schema" is believed.
const UNKNOWN_SCHEMA_BELIEVED: Duration = Duration::from_secs(10);
/// Schema ids of a table's first batch that are looked up to decide what `auto` is: bytes that are no schema ids may
/// look like many.
const IDS_TRIED_MAX: usize = 16;
/// Values of a table's first batch that are read to decide whether `auto` is JSON.
const VALUES_TRIED_MAX: usize = 16;

/// What became of a raw batch.
pub(super) enum Decoded {
    /// Every record is decided.
    Rows(DecodedBatch),
    /// Its schema cannot be brought into the table's. The batch, untouched, and why.
    Misfit(RawBatch, String),
}

/// What is known of one side of a topic's records before the first of them.
#[derive(Debug, Clone)]
enum Registered {
    /// With its id in the registry; 0 where the configuration gives it.
    Schema(Arc<Schema>, u32),
    Column(Type),
}

/// What is known of both sides before the first record.
pub(super) struct Known {
    key: Option<Registered>,
    value: Option<Registered>,
    /// As table properties, the formats that this decides.
    pub(super) decided: BTreeMap<String, String>,
}

impl Known {
    /// The columns of such records. What cannot be read makes none: its records are rejected, each with the reason.
    pub(super) fn columns(&self, layout: &Layout) -> Result<TableSchema> {
        wanted(&TableSchema::default(), layout, side(self.key.as_ref(), layout), side(self.value.as_ref(), layout))
    }

    /// True where records bring no others before a schema changes.
    pub(super) fn is_complete(&self, layout: &Layout) -> bool {
        let no_key = layout.key_columns == KeyColumns::None || layout.key_format == Format::None;
        (no_key || shape(self.key.as_ref(), layout).is_some()) && shape(self.value.as_ref(), layout).is_some()
    }
}

fn side(of: Option<&Registered>, layout: &Layout) -> Side {
    let version = match of {
        Some(Registered::Schema(schema, id)) => schema.name(MessagePath::FIRST).map(|name| (name.to_owned(), *id)),
        Some(Registered::Column(_)) | None => None,
    };
    Side { columns: shape(of, layout).unwrap_or(Columns::Nothing), version }
}

fn shape(side: Option<&Registered>, layout: &Layout) -> Option<Columns> {
    match side? {
        Registered::Schema(schema, _) => schema.columns(MessagePath::FIRST, layout.mapping).ok(),
        Registered::Column(kind) => Some(Columns::One(kind.clone())),
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
    filter: Planned,
    sides: Sides,
    schemas: HashMap<SchemaKey, SchemaUse>,
    /// When schemas that the registry does not know are to be asked for again.
    forget_at: Option<Duration>,
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
        let known = self.known().await?;
        let layout = Arc::new(layout_for(&self.spec, state));
        self.check_filter(&state.schema, &known, &layout)?;
        let column = |name: &str| state.schema.field(name).map(|field| &field.kind);
        let decided = self.decided(state);
        let sides = Sides {
            key: decided.key.unwrap_or_else(|| settled(layout.key_format, known.key.as_ref(), column("key"))),
            value: decided.value.unwrap_or_else(|| settled(layout.value_format, known.value.as_ref(), column("value"))),
        };
        let decoder = Decoder::new(layout, Arc::clone(&state.schema), sides, HashMap::new());
        let (decoder, filter) = (Arc::new(decoder), self.planned(&state.schema));
        self.set(Current { state: state.clone(), decoder, filter, sides, schemas: HashMap::new(), forget_at: None });
        Ok(())
    }

    /// Key and value schemas as the registry's subjects have them now, where the format asks for them.
    async fn registered(&self) -> Result<(Option<Registered>, Option<Registered>)> {
        let layout = &self.spec.layout;
        let key = match layout.key_columns {
            KeyColumns::None => None,
            KeyColumns::Raw => Some(Registered::Column(Type::Binary)),
            KeyColumns::Flatten | KeyColumns::Struct => self.registered_side(layout.key_format, "key").await?,
        };
        Ok((key, self.registered_side(layout.value_format, "value").await?))
    }

    async fn registered_side(&self, format: Format, side: &str) -> Result<Option<Registered>> {
        let given = &self.spec.layout.given;
        match format {
            Format::None => return Ok(None),
            Format::String => return Ok(Some(Registered::Column(Type::String))),
            Format::Bytes => return Ok(Some(Registered::Column(Type::Binary))),
            Format::Json => return Ok(None),
            Format::Given => {
                let schema = if side == "key" { &given.key } else { &given.value };
                return Ok(schema.as_ref().map(|given| Registered::Schema(Arc::clone(&given.schema), 0)));
            }
            Format::Auto | Format::Registry => {}
        }
        let Some(registry) = &self.ports.registry else { return Ok(None) };
        let subjects = &self.spec.subjects;
        let subject = if side == "key" { &subjects.key } else { &subjects.value };
        if subject.is_empty() {
            return Ok(None);
        }
        let Some(found) = registry.latest(subject).await? else { return Ok(None) };
        // A schema that cannot be read is no reason not to begin: its records are rejected, each with the reason.
        Ok(Schema::parse(&found).ok().map(|schema| Registered::Schema(Arc::new(schema), found.id)))
    }

    /// What is known of the records before the first of them.
    pub(super) async fn known(&self) -> Result<Known> {
        let ((key, value), layout) = (self.registered().await?, &self.spec.layout);
        let decided = self.decisions(Sides {
            key: settled(layout.key_format, key.as_ref(), None),
            value: settled(layout.value_format, value.as_ref(), None),
        });
        Ok(Known { key, value, decided })
    }

    /// The table properties that hold what `auto` was decided to be.
    fn decisions(&self, sides: Sides) -> BTreeMap<String, String> {
        let layout = &self.spec.layout;
        let all = [(AUTO_KEY, layout.key_format, sides.key), (AUTO_VALUE, layout.value_format, sides.value)];
        let word = |(name, configured, side): (&str, Format, Format)| {
            let word = DECIDED.iter().find(|(format, _)| *format == side).filter(|_| configured == Format::Auto)?.1;
            Some((name.to_owned(), word.to_owned()))
        };
        all.into_iter().filter_map(word).collect()
    }

    /// Decides every record of `batch`, whatever must be looked up or added to the table for it.
    pub(super) async fn decode(&self, batch: RawBatch) -> Result<Decoded> {
        self.decode_of(batch, None).await
    }

    /// As [`Resolver::decode`], for records of that incarnation of their topic; `None`: of the one being read.
    pub(super) async fn decode_of(&self, mut batch: RawBatch, of: Option<i32>) -> Result<Decoded> {
        loop {
            let Some(current) = self.fresh() else {
                return Err(crate::error::Error::bug("decode before the table was seen"));
            };
            let incarnation = of.unwrap_or_else(|| incarnation(&current.state, &batch.source.topic));
            let filter = match &current.filter {
                Ok(filter) => filter.clone(),
                Err(why) => return Ok(Decoded::Misfit(batch, why.clone())),
            };
            let decoder = Arc::clone(&current.decoder);
            let table = Arc::clone(decoder.table());
            let clock = self.ports.clock.clone();
            let (decoding, took) = self
                .ports
                .compute
                .run(move || {
                    let begun = clock.elapsed();
                    let decide = |rows: &_| filter.as_ref().map(|filter| filter.decide(rows)).transpose();
                    let decoding = decoder.decode_filtered(batch, incarnation, &decide);
                    (decoding, clock.elapsed().saturating_sub(begun))
                })
                .await?;
            self.ports.metrics.decode_seconds.inc_by(took.as_secs_f64());
            match decoding? {
                Decoding::Done(rows) => return Ok(Decoded::Rows(rows)),
                Decoding::Needs(same, needs) => {
                    batch = same;
                    if !self.learn(&batch, &table, *needs).await? {
                        return Ok(Decoded::Misfit(batch, "its columns are not there yet".to_owned()));
                    }
                }
                Decoding::Misfit(same, misfit) => return Ok(Decoded::Misfit(same, misfit)),
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
        let layout = Arc::new(layout_for(&self.spec, &current.state));
        let table = Arc::clone(&current.state.schema);
        if table != *current.decoder.table() {
            current.filter = self.planned(&table);
        }
        current.decoder = Arc::new(Decoder::new(layout, table, current.sides, current.schemas.clone()));
        current
    }

    /// Looks up, decides and changes what a batch needs that was decoded for `table`; false where somebody else is to
    /// decide or change it first.
    async fn learn(&self, batch: &RawBatch, table: &Arc<TableSchema>, needs: Needs) -> Result<bool> {
        let _one_at_a_time = self.learning.lock().await;
        let Some(current) = self.current() else { return Ok(true) };
        let mut current = Current::clone(&current);
        if (needs.value_undecided || needs.key_undecided) && !self.decide(&mut current, batch, &needs).await? {
            return Ok(false);
        }
        for key in needs.schemas {
            if let Entry::Vacant(place) = current.schemas.entry(key) {
                place.insert(self.look_up(key).await?);
            }
        }
        if current.schemas.values().any(|known| matches!(known, SchemaUse::Rejected(Reason::UnknownSchemaId, _))) {
            current.forget_at.get_or_insert(self.ports.clock.elapsed() + UNKNOWN_SCHEMA_BELIEVED);
        }
        // What was wanted of columns that have changed meanwhile is worked out anew.
        if let Some(wanted) = needs.table.filter(|_| current.state.schema == *table) {
            if !self.adds_columns {
                return Ok(false);
            }
            self.evolve(&mut current, &wanted).await?;
        }
        // A commit may have ended meanwhile; its state is newer, unless columns were changed after it.
        if let Some(now) = self.current().filter(|now| {
            let (now, then) = (&now.state.schema, &current.state.schema);
            now.schema_id > then.schema_id || now == then
        }) {
            current.state = now.state.clone();
        }
        self.set(self.rebuilt(current));
        Ok(true)
    }

    /// Decides what `auto` is, unless the table says it already: another replica may have been first. A reader decides
    /// nothing; false where it would have to.
    async fn decide(&self, current: &mut Current, batch: &RawBatch, needs: &Needs) -> Result<bool> {
        let (table, lake) = (&self.spec.settings.table, &self.ports.lake);
        if let Some(state) = self.patiently(On::Catalog, || lake.load(table)).await? {
            current.state = state;
        }
        let known = self.decided(&current.state);
        current.sides.key = known.key.unwrap_or(current.sides.key);
        current.sides.value = known.value.unwrap_or(current.sides.value);
        let key_is_open = needs.key_undecided && current.sides.key == Format::Auto;
        let value_is_open = needs.value_undecided && current.sides.value == Format::Auto;
        if !self.adds_columns || !(key_is_open || value_is_open) {
            return Ok(!(key_is_open || value_is_open));
        }
        let mut sides = current.sides;
        if value_is_open {
            sides.value = self.format_of("value", batch.records.iter().filter_map(|r| batch.value(r))).await?;
        }
        if key_is_open {
            sides.key = self.format_of("key", batch.records.iter().filter_map(|r| batch.key(r))).await?;
        }
        // Kept with the table, so that it stays so after a restart and for every replica; the first one to say it wins.
        let (from, decisions) = (&current.state, self.decisions(sides));
        current.state = self.patiently(On::Catalog, || lake.evolve(from, &from.schema, &decisions)).await?;
        let known = self.decided(&current.state);
        current.sides = Sides { key: known.key.unwrap_or(sides.key), value: known.value.unwrap_or(sides.value) };
        Ok(true)
    }

    /// What the table says that `auto` was decided to be.
    fn decided(&self, state: &TableState) -> Decided {
        let format = |name: &str, configured: Format| {
            let word = state.properties.get(name).filter(|_| configured == Format::Auto)?;
            DECIDED.iter().find(|(_, known)| known == word).map(|(format, _)| *format)
        };
        let layout = &self.spec.layout;
        Decided { key: format(AUTO_KEY, layout.key_format), value: format(AUTO_VALUE, layout.value_format) }
    }

    /// The format that `auto` stands for, for good: the registry's where one of these values carries an id that it
    /// knows or where it has a subject for this side of the topic; else JSON where the values are JSON objects; else
    /// bytes. Keys are no JSON: they are compared byte by byte.
    async fn format_of(&self, side: &str, values: impl Iterator<Item = &[u8]>) -> Result<Format> {
        let values: Vec<&[u8]> = values.collect();
        let ids: BTreeSet<u32> = values.iter().filter_map(|value| wire_schema_id(value)).collect();
        let (mut format, mut because) = (Format::Bytes, "no value carries a schema id that the registry knows");
        let is_object = |value: &&[u8]| serde_json::from_slice::<Map<String, Value>>(value).is_ok();
        if side == "value" && values.iter().take(VALUES_TRIED_MAX).all(is_object) {
            (format, because) = (Format::Json, "the first values are JSON objects");
        }
        for id in ids.into_iter().take(IDS_TRIED_MAX) {
            if !matches!(self.look_up(SchemaKey::Id(id)).await?, SchemaUse::Rejected(Reason::UnknownSchemaId, _)) {
                (format, because) = (Format::Registry, "a value carries a schema id that the registry knows");
                break;
            }
        }
        if format != Format::Registry {
            let registered = self.patiently(On::Registry, || self.registered_side(Format::Registry, side)).await?;
            if settled(Format::Auto, registered.as_ref(), None) == Format::Registry {
                (format, because) = (Format::Registry, "the registry has a subject for it");
            }
        }
        tracing::info!(table = %self.spec.settings.table, side, ?format, because, "format `auto` is decided");
        Ok(format)
    }

    async fn look_up(&self, key: SchemaKey) -> Result<SchemaUse> {
        let unknown = || SchemaUse::Rejected(Reason::UnknownSchemaId, format!("the registry knows no {key}"));
        let Some(registry) = &self.ports.registry else { return Ok(unknown()) };
        let found = match key {
            SchemaKey::Id(id) => self.patiently(On::Registry, || registry.schema(id)).await?,
            SchemaKey::Guid(guid) => {
                self.patiently(On::Registry, || registry.schema_by_guid(Uuid::from_u128(guid))).await?
            }
            SchemaKey::OfKeys | SchemaKey::OfValues => None,
        };
        Ok(found.map_or_else(unknown, |found| match Schema::parse(&found) {
            Ok(schema) => SchemaUse::Known(Arc::new(schema)),
            Err(error) => SchemaUse::Rejected(Reason::IncompatibleSchema, error.chain()),
        }))
    }

    /// Changes the table's columns. Where another replica has changed them first, its columns are taken, and the batch is
    /// decoded for them.
    async fn evolve(&self, current: &mut Current, wanted: &TableSchema) -> Result<()> {
        let (table, lake) = (&self.spec.settings.table, &self.ports.lake);
        let (from, nothing) = (&current.state, BTreeMap::new());
        current.state = self.patiently(On::Catalog, || lake.evolve(from, wanted, &nothing)).await?;
        tracing::info!(%table, schema_id = current.state.schema.schema_id, "columns changed");
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

/// What a format comes to before the first record, by what is registered for its side and the column that holds it.
fn settled(configured: Format, registered: Option<&Registered>, column: Option<&Type>) -> Format {
    match (configured, registered, column) {
        (Format::Auto, Some(Registered::Schema(..)), _) => Format::Registry,
        (Format::Auto, _, Some(Type::Binary)) => Format::Bytes,
        _ => configured,
    }
}

/// What `auto` may be decided to be, and its word in a table's properties.
const DECIDED: [(Format, &str); 3] = [(Format::Registry, "registry"), (Format::Json, "json"), (Format::Bytes, "bytes")];

/// What `auto` was decided to be; `None` while it was not, or where the configuration says something else.
struct Decided {
    key: Option<Format>,
    value: Option<Format>,
}

fn incarnation(state: &TableState, topic: &str) -> i32 {
    let Recovery::At(progress) = &state.recovery else { return 0 };
    let topic = progress.ledger.topics.get(topic);
    topic.map_or(0, |topic| i32::try_from(topic.incarnation).unwrap_or(i32::MAX))
}
