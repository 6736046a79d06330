//! One file on its way to a store: buffered into parts, a bounded number of them in flight, and never left behind.

use std::mem;
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};
use tokio::task::JoinSet;

use crate::error::{Error, Result};
use crate::runtime::task::{self, TaskKind};

use super::{Traffic, from_store};

/// Bytes of a part. S3 takes 10,000 parts: files up to 80 GB.
const PART_BYTES: usize = 8 << 20;
/// Parts of one file in flight: with the part being filled, 40 MiB of memory at most.
const PARTS_IN_FLIGHT_MAX: usize = 4;

/// A file being written. It exists once [`Upload::finish`] has returned, and not before; dropped or aborted, its
/// parts are removed from the store. A file of one part is written by one plain request.
#[derive(Debug)]
pub struct Upload {
    store: Arc<dyn ObjectStore>,
    path: Path,
    location: String,
    buffer: Vec<Bytes>,
    buffered: usize,
    written: u64,
    parts: Option<Box<dyn MultipartUpload>>,
    in_flight: JoinSet<object_store::Result<()>>,
    traffic: Arc<Traffic>,
}

impl Upload {
    pub(super) fn new(store: Arc<dyn ObjectStore>, path: Path, location: &str, traffic: Arc<Traffic>) -> Self {
        Self {
            store,
            path,
            location: location.to_owned(),
            buffer: Vec::new(),
            buffered: 0,
            written: 0,
            parts: None,
            in_flight: JoinSet::new(),
            traffic,
        }
    }

    /// Takes the next bytes of the file; waits while too many parts are in flight.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`; the upload cannot go on then.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        self.written += bytes.len() as u64;
        while self.buffered + bytes.len() >= PART_BYTES {
            let rest = bytes.split_off(PART_BYTES - self.buffered);
            self.buffer.push(bytes);
            self.send_part().await?;
            bytes = rest;
        }
        if !bytes.is_empty() {
            self.buffered += bytes.len();
            self.buffer.push(bytes);
        }
        Ok(())
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Completes the file and returns its size in bytes. After an error the parts are removed.
    ///
    /// # Errors
    /// `Unavailable`, `Denied`: the file may or may not exist, and nothing refers to it.
    pub async fn finish(mut self) -> Result<u64> {
        self.traffic.wrote(self.written);
        if self.parts.is_none() {
            let payload: PutPayload = mem::take(&mut self.buffer).into_iter().collect();
            self.store.put(&self.path, payload).await.map_err(|e| self.failed(e))?;
            return Ok(self.written);
        }
        if !self.buffer.is_empty() {
            self.send_part().await?;
        }
        self.wait_for_room(1).await?;
        if let Some(parts) = &mut self.parts {
            let completed = parts.complete().await;
            completed.map_err(|e| self.failed(e))?;
        }
        self.parts = None;
        Ok(self.written)
    }

    /// Gives the file up and removes what is stored of it.
    pub async fn abort(mut self) {
        self.in_flight.shutdown().await;
        if let Some(parts) = self.parts.take() {
            remove(parts, &self.location).await;
        }
    }

    async fn send_part(&mut self) -> Result<()> {
        self.wait_for_room(PARTS_IN_FLIGHT_MAX).await?;
        if self.parts.is_none() {
            let parts = self.store.put_multipart(&self.path).await.map_err(|e| self.failed(e))?;
            self.parts = Some(parts);
        }
        let payload: PutPayload = mem::take(&mut self.buffer).into_iter().collect();
        self.buffered = 0;
        if let Some(parts) = &mut self.parts {
            self.in_flight.spawn(parts.put_part(payload));
        }
        Ok(())
    }

    /// Waits until fewer than `limit` parts are in flight.
    async fn wait_for_room(&mut self, limit: usize) -> Result<()> {
        while self.in_flight.len() >= limit
            && let Some(part) = self.in_flight.join_next().await
        {
            part.map_err(object_store::Error::from).flatten().map_err(|e| self.failed(e))?;
        }
        Ok(())
    }

    fn failed(&self, error: object_store::Error) -> Error {
        from_store(format!("write file `{}`", self.location), error)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(parts) = self.parts.take() else { return };
        // Without a runtime the process ends; the store's own rule for unfinished uploads cleans up then.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let mut in_flight = mem::take(&mut self.in_flight);
        let location = mem::take(&mut self.location);
        task::spawn(TaskKind::Background, format!("abort upload of {location}"), async move {
            in_flight.shutdown().await;
            remove(parts, &location).await;
            Ok(())
        });
    }
}

async fn remove(mut parts: Box<dyn MultipartUpload>, location: &str) {
    if let Err(error) = parts.abort().await {
        let error = from_store("abort upload", error);
        tracing::warn!(file = location, error = %error.chain(), "the parts of an upload are left behind");
    }
}
