//! What tests of replays begin with: records, schemas, a registry that learns, a catalog that is interfered with.

use super::*;

/// What the records of a test hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    /// A number, by the schema with this id.
    Of(u8, i64),
    /// Nothing that will ever be a row.
    Garbage,
}

/// What a row shows: the number, and the text of schemas from 2 on.
pub(super) type Row = (i64, Option<String>);

impl Body {
    pub(super) fn bytes(self) -> Vec<u8> {
        match self {
            Self::Garbage => b"garbage".to_vec(),
            Self::Of(id, n) => {
                let mut bytes = vec![0, 0, 0, 0, id];
                let mut rest = ((n << 1) ^ (n >> 63)).cast_unsigned();
                while rest >= 0x80 {
                    bytes.push((rest & 0x7f) as u8 | 0x80);
                    rest >>= 7;
                }
                bytes.push(rest as u8);
                if id > 1 {
                    bytes.extend([2, 2, b'a' + id]);
                }
                bytes
            }
        }
    }

    pub(super) fn row(self) -> Row {
        let Self::Of(id, n) = self else { panic!("garbage is no row") };
        (n, (id > 1).then(|| char::from(b'a' + id).to_string()))
    }
}

/// Schema 1 is known from the start; each further one has a column of its own.
pub(super) fn schema(id: u8) -> RegisteredSchema {
    let extra = format!(r#",{{"name":"s{id}","type":["null","string"]}}"#);
    let extra = if id > 1 { &*extra } else { "" };
    let text = format!(r#"{{"type":"record","name":"R","fields":[{{"name":"n","type":"long"}}{extra}]}}"#);
    RegisteredSchema { id: id.into(), format: SchemaFormat::Avro, text, references: Vec::new() }
}

/// A registry that learns.
#[derive(Default)]
pub(super) struct Learning(pub(super) Mutex<BTreeMap<u32, Arc<RegisteredSchema>>>);

impl Learning {
    pub(super) fn learn(&self, schema: RegisteredSchema) {
        self.0.lock().unwrap().insert(schema.id, Arc::new(schema));
    }
}

#[async_trait]
impl Registry for Learning {
    async fn schema(&self, id: u32) -> Result<Option<Arc<RegisteredSchema>>> {
        Ok(self.0.lock().unwrap().get(&id).cloned())
    }

    async fn schema_by_guid(&self, _: uuid::Uuid) -> Result<Option<Arc<RegisteredSchema>>> {
        Ok(None)
    }

    async fn latest(&self, _: &str) -> Result<Option<Arc<RegisteredSchema>>> {
        Ok(None)
    }
}

/// What happens before a commit is sent.
pub(super) type Hook = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// A catalog on the way to which things happen.
#[derive(Default)]
pub(super) struct Interference {
    /// One before each commit, in order.
    pub(super) before_commits: Mutex<std::collections::VecDeque<Hook>>,
    /// Requests until the process is dead: nothing is sent, or nobody hears the answer.
    pub(super) alive_for: Mutex<Option<(usize, bool)>>,
    /// Told when it is dead.
    pub(super) died: tokio::sync::Notify,
}

pub(super) struct Interfered {
    pub(super) inner: MemoryCatalog,
    pub(super) by: Arc<Interference>,
}

impl Interfered {
    /// Never returns once the process is dead.
    async fn pass<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        let (dies, is_sent) = match &mut *self.by.alive_for.lock().unwrap() {
            None => (false, true),
            Some((0, _)) => (true, false),
            Some((left, is_last_sent)) => {
                *left -= 1;
                (*left == 0, *left > 0 || *is_last_sent)
            }
        };
        let answer = if is_sent { Some(request.await) } else { None };
        match answer.filter(|_| !dies) {
            Some(answer) => answer,
            None => {
                self.by.died.notify_one();
                std::future::pending().await
            }
        }
    }
}

#[async_trait]
impl Catalog for Interfered {
    async fn load(&self, table: &TableName) -> Result<Option<LoadedTable>> {
        self.pass(self.inner.load(table)).await
    }

    async fn create(&self, table: &TableName, creation: TableCreation) -> Result<LoadedTable> {
        self.pass(self.inner.create(table, creation)).await
    }

    async fn commit(&self, changes: Vec<TableChange>) -> Result<Applied> {
        let hook = self.by.before_commits.lock().unwrap().pop_front();
        if let Some(hook) = hook {
            hook().await;
        }
        self.pass(self.inner.commit(changes)).await
    }

    async fn list(&self) -> Result<Vec<TableName>> {
        self.inner.list().await
    }

    async fn take_lease(&self, name: &str, owner: &str, now_ms: i64, until_ms: i64) -> Result<bool> {
        self.inner.take_lease(name, owner, now_ms, until_ms).await
    }

    async fn location(&self, table: &TableName) -> Result<Option<String>> {
        self.inner.location(table).await
    }

    async fn namespaces(&self) -> Result<BTreeMap<Vec<String>, Properties>> {
        self.inner.namespaces().await
    }
}

pub(super) fn spec(evolution: Evolution) -> TableSpec {
    let second = std::time::Duration::from_secs(1);
    let settings = Settings {
        table: "shop.orders".parse().unwrap(),
        topics: vec!["a".to_owned(), "b".to_owned()],
        start: StartAt::Earliest,
        on_gap: OnGap::Fail,
        on_topic_change: OnTopicChange::NewIncarnation,
        on_error: OnError::DeadLetter,
        commit_interval: second,
        idle_interval: second,
        commit_bytes: 1 << 20,
        commit_rows: 1000,
        commit_at_ends: false,
        revoke_timeout: second,
        retry_interval: second,
        identity_interval: second,
    };
    let metadata = [Metadata::Topic, Metadata::Partition, Metadata::Headers, Metadata::LeaderEpoch, Metadata::Offset];
    let layout = Layout {
        key_format: Format::String,
        key_columns: KeyColumns::Flatten,
        value_format: Format::Registry,
        names: MetadataNames::Kafka,
        metadata: [&metadata[..], &[Metadata::Timestamp, Metadata::Incarnation]].concat(),
        mapping: MappingOptions::default(),
        tombstones: Tombstones::Keep,
        record_bytes_max: 1 << 20,
        evolution,
        partitioned: Vec::new(),
        pinned: Vec::new(),
        given: Given::default(),
        projection: Arc::default(),
    };
    TableSpec {
        settings,
        layout,
        filter: None,
        adopts: false,
        partition_by: Vec::new(),
        sort_by: Vec::new(),
        format_version: 2,
        properties: BTreeMap::new(),
        location: None,
        dead_letter_topic: None,
        subjects: Subjects::default(),
    }
}

/// A batch of these values; each record's key, headers, timestamp and epoch follow from its offset.
pub(super) fn batch(source: &TopicPartition, first: NextOffset, values: &[Body]) -> RawBatch {
    let mut batch = RawBatch::new(source.clone(), Attempt::default(), first);
    for (value, offset) in values.iter().zip(first.0..) {
        let (start, key, value) = (batch.bytes.len(), format!("k{offset}"), value.bytes());
        batch.bytes.extend([key.as_bytes(), &value].concat());
        let body = batch.bytes.len();
        Headers::push(&mut batch.bytes, b"h", Some(offset.to_string().as_bytes()));
        let len = |bytes: usize| i32::try_from(bytes).unwrap();
        batch.records.push(RawRecord {
            offset,
            timestamp_ms: 1_000_000 + offset,
            leader_epoch: i32::try_from(offset % 7).unwrap(),
            start: u32::try_from(start).unwrap(),
            key_len: len(key.len()),
            value_len: len(value.len()),
            headers_len: u32::try_from(batch.bytes.len() - body).unwrap(),
            timestamp_type: TimestampType::CreateTime,
        });
        batch.next = NextOffset(offset + 1);
    }
    batch
}

/// A row has its record's own metadata, whenever it became a row.
pub(super) fn check_metadata(rows: &RecordBatch, row: usize, id: &RecordId) {
    let column = |name: &str| rows.column_by_name(name).unwrap();
    assert_eq!(column("key").as_string::<i32>().value(row), format!("k{}", id.offset));
    let micros = column("kafka_timestamp").as_primitive::<TimestampMicrosecondType>().value(row);
    assert_eq!(micros, (1_000_000 + id.offset) * 1000);
    let epoch = column("kafka_leader_epoch").as_primitive::<Int32Type>().value(row);
    assert_eq!(i64::from(epoch), id.offset % 7);
    let headers = column("kafka_headers").as_list::<i32>().value(row);
    let headers = headers.as_struct();
    assert_eq!((headers.len(), headers.column(0).as_string::<i32>().value(0)), (1, "h"));
    assert_eq!(headers.column(1).as_binary::<i32>().value(0), id.offset.to_string().as_bytes());
}
