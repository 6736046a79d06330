//! Dead letters to a topic: a table's dead-letter table is followed, and what each of its commits brought is sent in one
//! transaction with the note of how far the topic has it. So a letter is in the topic once, whatever dies in between.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;

use crate::decode::dead_letters::Letters;
use crate::error::{Error, ErrorKind, Result, policy};
use crate::kafka::{self, LetterMessage, LetterTopic, LettersAt};
use crate::lake::IcebergLake;
use crate::lake::letters::Arrived;
use crate::model::ids::{Attempt, TableName};
use crate::model::raw::RawBatch;
use crate::ports::{Leases, TableState};
use crate::runtime::backoff::Backoff;
use crate::runtime::clock::Clock;
use crate::runtime::crash;
use crate::runtime::shutdown::Shutdown;
use crate::telemetry::metrics::TableMetrics;

/// How often the table is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long one process has the work to itself, unless it renews that. Two at once would be right, too, and stand in each
/// other's way.
const LEASE: Duration = Duration::from_secs(10);
/// How often the note of how far the topic has the letters is written again: brokers drop notes that are old.
const NOTE_INTERVAL: Duration = Duration::from_hours(1);

/// What sends one table's letters.
pub(super) struct LetterSender {
    /// The table whose records they are.
    pub(super) table: TableName,
    /// Where they go.
    pub(super) topic: String,
    /// The brokers.
    pub(super) options: kafka::Options,
    /// The tables.
    pub(super) lake: Arc<IcebergLake>,
    /// Time.
    pub(super) clock: Clock,
    /// What is counted.
    pub(super) metrics: Arc<TableMetrics>,
    /// True where the process ends once all is done: it waits for a process that was killed on the way.
    pub(super) until_caught_up: bool,
}

/// The topic while it is open, and how far it has the letters.
struct Open {
    topic: LetterTopic,
    at: Option<LettersAt>,
    /// When the note of it was written.
    noted: Option<Duration>,
}

/// When the work was last asked for, and the dead-letter table's newest commit then.
type Asked = Option<(i64, Duration)>;

impl LetterSender {
    /// Sends letters as they are committed, until `stop`; then those that are there, and ends.
    pub(super) async fn run(self, stop: Shutdown) -> Result<()> {
        let (mut open, mut asked, mut backoff) = (None, None, Backoff::service());
        let owner = self.clock.fresh_id().to_string();
        loop {
            let is_last = stop.is_requested();
            if is_last {
                asked = None;
            }
            let pause = match self.round(&mut open, &mut asked, &owner).await {
                Ok(is_done) => {
                    if is_last && (is_done || !self.until_caught_up) {
                        break;
                    }
                    backoff = Backoff::service();
                    INTERVAL
                }
                Err(error) => {
                    let (_, hint) = policy(error.kind());
                    let (table, topic) = (&self.table, &self.topic);
                    tracing::warn!(%table, topic, error = %error.chain(), hint, "dead letters wait for their topic");
                    // What was sent and not committed is taken back where the topic is opened again.
                    (open, asked) = (None, None);
                    if is_last {
                        break;
                    }
                    backoff.pause()
                }
            };
            if is_last {
                self.clock.sleep(pause).await;
            } else {
                self.clock.timeout(pause, stop.requested()).await;
            }
        }
        // Where that fails it runs out by itself.
        let _ = self.lake.take(&self.lease(), &owner, Duration::ZERO).await;
        Ok(())
    }

    fn lease(&self) -> String {
        format!("letters to topic:{}", self.table)
    }

    /// Sends what has come; false where the work is another process's.
    async fn round(&self, open: &mut Option<Open>, asked: &mut Asked, owner: &str) -> Result<bool> {
        let name = self.table.dead_letters();
        // Nothing is asked of the brokers before there is a letter.
        let Some(now) = self.lake.letters_after(&name, Some(i64::MAX)).await? else { return Ok(true) };
        let (number, time) = (now.table.sequence_number, self.clock.elapsed());
        if asked.is_some_and(|(asked, at)| asked == number && time < at + LEASE / 3) {
            return Ok(true);
        }
        *asked = Some((number, time));
        if !self.lake.take(&self.lease(), owner, LEASE).await? {
            *open = None;
            return Ok(false);
        }
        let open = match open {
            Some(open) => open,
            place => {
                let topic = LetterTopic::open(&self.options, &self.table.to_string(), &self.topic, &self.clock).await?;
                let at = topic.position().await?;
                place.insert(Open { topic, at, noted: None })
            }
        };
        // A table that was made anew begins anew.
        let after = open.at.filter(|at| at.table == now.table.uuid).map(|at| at.sequence_number);
        let Some(found) = self.lake.letters_after(&name, after).await? else { return Ok(true) };
        if found.has_hole {
            let table = &self.table;
            tracing::error!(%table, topic = self.topic, "snapshots expired before their dead letters were sent to the topic");
        }
        for commit in found.commits {
            self.send(open, &found.table, &commit, owner).await?;
        }
        if let Some(at) = open.at.filter(|_| open.noted.is_none_or(|noted| time >= noted + NOTE_INTERVAL)) {
            open.topic.begin()?;
            self.note(open, at).await?;
        }
        Ok(true)
    }

    /// Writes the note with the letters that are in the transaction.
    async fn note(&self, open: &mut Open, at: LettersAt) -> Result<()> {
        open.topic.commit(at).await?;
        (open.at, open.noted) = (Some(at), Some(self.clock.elapsed()));
        Ok(())
    }

    /// Sends the letters of one commit.
    async fn send(&self, open: &mut Open, table: &TableState, commit: &Arrived, owner: &str) -> Result<()> {
        open.topic.begin()?;
        let mut sent = 0;
        for file in &commit.files {
            let mut rows = self.lake.letters_in(table, file).await?;
            while let Some(rows) = rows.try_next().await? {
                let letters = Letters::of(&rows)?;
                let messages: Vec<LetterMessage> = (0..letters.len())
                    .filter_map(|row| self.message(&letters, row).transpose())
                    .collect::<Result<_>>()?;
                sent += messages.len() as u64;
                open.topic.send(messages).await?;
                if !self.lake.take(&self.lease(), owner, LEASE).await? {
                    let text = "another process sends the dead letters by now, since this one took too long";
                    return Err(Error::new(ErrorKind::Conflict, text));
                }
            }
        }
        crash::point(crash::LETTERS_SENT);
        let at = LettersAt { table: table.uuid, sequence_number: commit.sequence_number };
        self.note(open, at).await?;
        crash::point(crash::LETTERS_IN_TOPIC);
        self.metrics.letters_sent.inc_by(sent);
        Ok(())
    }

    /// A letter as a message: the record as it came, and behind its own headers why it is a letter and where it was.
    fn message(&self, letters: &Letters, row: usize) -> Result<Option<LetterMessage>> {
        let Some(id) = letters.id(row) else { return Ok(None) };
        let mut batch =
            RawBatch::new(id.source.clone(), Attempt::default(), crate::model::offsets::NextOffset(id.offset));
        letters.push(row, &mut batch)?;
        let Some(record) = batch.records.first() else { return Ok(None) };
        let owned = |bytes: &[u8]| bytes.to_vec();
        let own = batch.headers(record);
        let own = own.map(|(key, value)| (String::from_utf8_lossy(key).into_owned(), value.map(owned)));
        let about = [
            ("table", self.table.to_string()),
            ("reason", letters.reason(row).to_owned()),
            ("message", letters.message(row).to_owned()),
            ("topic", id.source.topic.to_string()),
            ("partition", id.source.partition.to_string()),
            ("offset", id.offset.to_string()),
        ];
        let about = about.map(|(name, text)| (format!("__frazil.errors.{name}"), Some(text.into_bytes())));
        Ok(Some(LetterMessage {
            key: batch.key(record).map(owned),
            value: batch.value(record).map(owned),
            timestamp_ms: Some(record.timestamp_ms).filter(|ms| *ms >= 0),
            headers: own.chain(about).collect(),
        }))
    }
}
