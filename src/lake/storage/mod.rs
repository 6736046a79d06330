//! One storage stack: locations of files, the stores that hold them, whole files and uploads. What the files mean is
//! the caller's matter. iceberg reads and writes through the same stores ([`Stores::file_io`]).

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use tokio::sync::Mutex;

use crate::error::{Error, Result};
use crate::ports::Properties;

mod cloud;
mod credentials;
mod file_io;
mod local;
mod location;
mod upload;

pub use file_io::from_iceberg;
pub use upload::Upload;

use local::DurableFiles;
use location::{Location, Scheme};

/// Settings of the stores, by `object_store`'s names: `aws_endpoint`, `aws_region`, `azure_storage_account_name` …
///
/// They go over what the environment says. Secrets are among them, so `Debug` shows names only.
#[derive(Clone, Default)]
pub struct StorageOptions {
    /// Name to value; names that concern another kind of store are passed over.
    pub properties: BTreeMap<String, String>,
}

impl fmt::Debug for StorageOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.properties.keys()).finish()
    }
}

/// All stores of the process, one per bucket, opened when first used. Clones share them.
///
/// Locations are paths or `file://`, `s3://` (also `s3a`, `s3n`), `gs://`, `az://`, `abfs://`, `abfss://`, `memory://`.
/// What a write has answered is durable, on local disks too.
#[derive(Clone)]
pub struct Stores {
    inner: Arc<Inner>,
}

struct Inner {
    options: StorageOptions,
    memory: Arc<InMemory>,
    /// Every location lies in memory, its root being the first part of its path there.
    only_memory: bool,
    files: Arc<DurableFiles>,
    buckets: Mutex<HashMap<String, Bucket>>,
    traffic: Arc<Traffic>,
}

/// An open bucket.
#[derive(Clone)]
struct Bucket {
    store: Arc<dyn ObjectStore>,
    /// See [`Stores::access`].
    access: Properties,
}

/// What went to and came from stores, whole files: counted since the stores were made.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Requests, an upload counting as one.
    pub requests: AtomicU64,
    /// Bytes of files read.
    pub bytes_read: AtomicU64,
    /// Bytes of files written.
    pub bytes_written: AtomicU64,
}

impl Traffic {
    fn read(&self, bytes: usize) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes_read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn wrote(&self, bytes: u64) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes_written.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A file found by [`Stores::list`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// Its location in canonical form ([`Stores::normalise`]).
    pub location: String,
    /// Its size.
    pub size_bytes: u64,
    /// When it was last written, in milliseconds since the epoch by the store's clock.
    pub modified_ms: i64,
}

impl Stores {
    /// Stores with these options. Nothing is opened yet.
    ///
    /// # Errors
    /// `InvalidConfig` for an option that no store knows.
    pub fn new(options: StorageOptions) -> Result<Self> {
        cloud::validate(&options)?;
        Ok(Self::with(options, false))
    }

    /// What these stores have moved so far.
    #[must_use]
    pub fn traffic(&self) -> &Traffic {
        &self.inner.traffic
    }

    /// One store in memory that holds every location: for tests and simulations.
    #[must_use]
    pub fn memory() -> Self {
        Self::with(StorageOptions::default(), true)
    }

    fn with(options: StorageOptions, only_memory: bool) -> Self {
        Self {
            inner: Arc::new(Inner {
                options,
                memory: Arc::default(),
                only_memory,
                files: Arc::default(),
                buckets: Mutex::default(),
                traffic: Arc::default(),
            }),
        }
    }

    /// The canonical form of a location, in which two spellings of one place are equal: absolute, `file:///…` for
    /// local paths, `s3://` for all of S3's schemes, no slash at the end.
    ///
    /// # Errors
    /// `InvalidConfig` where it is no location.
    pub fn normalise(&self, location: &str) -> Result<String> {
        let location = Location::parse(location)?;
        Ok(format!("{}{}", location.root(), location.key))
    }

    /// The store that holds `location`, and the path inside it.
    ///
    /// # Errors
    /// `InvalidConfig` where it is no location or the store's options do not fit; `Denied` without credentials.
    pub async fn resolve(&self, location: &str) -> Result<(Arc<dyn ObjectStore>, Path)> {
        let parsed = Location::parse(location)?;
        let path = self.path(&parsed)?;
        Ok((self.store(&parsed).await?, path))
    }

    /// A whole file; `None` where there is none.
    ///
    /// # Errors
    /// As [`Stores::resolve`]; `Unavailable`.
    pub async fn read(&self, location: &str) -> Result<Option<Bytes>> {
        let (store, path) = self.resolve(location).await?;
        let read = async { store.get(&path).await?.bytes().await };
        let bytes = unless_missing(read.await).map_err(|e| from_store(format!("read file `{location}`"), e))?;
        self.inner.traffic.read(bytes.as_ref().map_or(0, Bytes::len));
        Ok(bytes)
    }

    /// Ranges of a file, in their order; neighbours are fetched together.
    ///
    /// # Errors
    /// As [`Stores::read`]; `Corrupt` where there is no such file.
    pub async fn read_ranges(&self, location: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let (store, path) = self.resolve(location).await?;
        let read = store.get_ranges(&path, ranges).await.map_err(|error| match error {
            object_store::Error::NotFound { .. } => Error::corrupt(format!("file `{location}` is missing")),
            error => from_store(format!("read file `{location}`"), error),
        })?;
        self.inner.traffic.read(read.iter().map(Bytes::len).sum());
        Ok(read)
    }

    /// Writes a whole file at once, over an older one.
    ///
    /// # Errors
    /// As [`Stores::read`].
    pub async fn write(&self, location: &str, bytes: Bytes) -> Result<()> {
        let (store, path) = self.resolve(location).await?;
        self.inner.traffic.wrote(bytes.len() as u64);
        store.put(&path, bytes.into()).await.map_err(|e| from_store(format!("write file `{location}`"), e))?;
        Ok(())
    }

    /// Writes a whole file unless there is one; true where this call wrote it. A store that repeats a request whose
    /// answer was lost may answer false for a file of this very call, so contents should name their writer.
    ///
    /// # Errors
    /// As [`Stores::read`].
    pub async fn put_if_absent(&self, location: &str, bytes: Bytes) -> Result<bool> {
        let (store, path) = self.resolve(location).await?;
        self.inner.traffic.wrote(bytes.len() as u64);
        match store.put_opts(&path, bytes.into(), PutMode::Create.into()).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(from_store(format!("write file `{location}`"), error)),
        }
    }

    /// Removes a file; one that is not there counts as removed.
    ///
    /// # Errors
    /// As [`Stores::read`].
    pub async fn delete(&self, location: &str) -> Result<()> {
        let (store, path) = self.resolve(location).await?;
        self.inner.traffic.wrote(0);
        unless_missing(store.delete(&path).await).map_err(|e| from_store(format!("delete file `{location}`"), e))?;
        Ok(())
    }

    /// True where there is a file.
    ///
    /// # Errors
    /// As [`Stores::read`].
    pub async fn exists(&self, location: &str) -> Result<bool> {
        Ok(self.size(location).await?.is_some())
    }

    /// A file's size in bytes; `None` where there is none.
    ///
    /// # Errors
    /// As [`Stores::read`].
    pub async fn size(&self, location: &str) -> Result<Option<u64>> {
        let (store, path) = self.resolve(location).await?;
        self.inner.traffic.read(0);
        let head = unless_missing(store.head(&path).await);
        Ok(head.map_err(|e| from_store(format!("look at file `{location}`"), e))?.map(|meta| meta.size))
    }

    /// All files below a folder, in no order.
    ///
    /// # Errors
    /// As [`Stores::resolve`]; the stream's items fail as [`Stores::read`].
    pub async fn list(&self, folder: &str) -> Result<BoxStream<'static, Result<StoredFile>>> {
        let parsed = Location::parse(folder)?;
        let path = self.path(&parsed)?;
        let store = self.store(&parsed).await?;
        let (root, folder) = (parsed.root(), folder.to_owned());
        let skipped = if self.inner.only_memory { memory_prefix(&parsed).len() } else { 0 };
        let files = store.list(Some(&path)).map(move |found| match found {
            Ok(meta) => {
                let key = meta.location.as_ref().get(skipped..).unwrap_or_default();
                let modified_ms = meta.last_modified.timestamp_millis();
                Ok(StoredFile { location: format!("{root}{key}"), size_bytes: meta.size, modified_ms })
            }
            Err(error) => Err(from_store(format!("list folder `{folder}`"), error)),
        });
        Ok(files.boxed())
    }

    /// Begins a file that is written piece by piece.
    ///
    /// # Errors
    /// As [`Stores::resolve`]. No request is sent yet.
    pub async fn upload(&self, location: &str) -> Result<Upload> {
        let (store, path) = self.resolve(location).await?;
        Ok(Upload::new(store, path, location, Arc::clone(&self.inner.traffic)))
    }

    /// What another engine must be told to reach the store of `location`, by the names of the Iceberg REST
    /// specification: endpoint, region and style of S3, nothing of others. Never a secret.
    ///
    /// # Errors
    /// As [`Stores::resolve`].
    pub async fn access(&self, location: &str) -> Result<Properties> {
        let location = Location::parse(location)?;
        match location.scheme {
            Scheme::S3 if !self.inner.only_memory => Ok(self.bucket(&location).await?.access),
            _ => Ok(Properties::new()),
        }
    }

    /// iceberg's view of these stores.
    #[must_use]
    pub fn file_io(&self) -> iceberg::io::FileIO {
        file_io::over(self.clone())
    }

    /// Removes all files below a folder.
    async fn delete_folder(&self, folder: &str) -> Result<()> {
        let files = self.list(folder).await?;
        files.try_for_each_concurrent(8, |file| async move { self.delete(&file.location).await }).await
    }

    fn path(&self, location: &Location) -> Result<Path> {
        let text = if self.inner.only_memory {
            format!("{}{}", memory_prefix(location), location.key)
        } else {
            location.key.clone()
        };
        Path::parse(&text).map_err(|e| {
            Error::invalid_config(format!("`{}{}` is no location", location.root(), location.key)).with_source(e)
        })
    }

    async fn store(&self, location: &Location) -> Result<Arc<dyn ObjectStore>> {
        let inner = &self.inner;
        match location.scheme {
            _ if inner.only_memory => Ok(inner.memory.clone()),
            Scheme::Memory => Ok(inner.memory.clone()),
            Scheme::File => Ok(inner.files.clone()),
            Scheme::S3 | Scheme::Gcs | Scheme::Azure(_) => Ok(self.bucket(location).await?.store),
        }
    }

    async fn bucket(&self, location: &Location) -> Result<Bucket> {
        // Held while one bucket is opened, so that the credential chain is read once.
        let mut buckets = self.inner.buckets.lock().await;
        let root = location.root();
        if let Some(bucket) = buckets.get(&root) {
            return Ok(bucket.clone());
        }
        // On the heap: reading the credential chain is a large future, and every access would carry it.
        let bucket = Box::pin(cloud::open(location, &self.inner.options)).await?;
        buckets.insert(root, bucket.clone());
        Ok(bucket)
    }
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stores").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

/// Where the one store in memory keeps the files of a root: `s3://bucket/` under `s3/bucket/`, `file:///` under `file/`.
fn memory_prefix(location: &Location) -> String {
    let root = location.root();
    let mut parts: Vec<&str> = root.split(['/', ':']).filter(|part| !part.is_empty()).collect();
    parts.push("");
    parts.join("/")
}

fn unless_missing<T>(result: object_store::Result<T>) -> object_store::Result<Option<T>> {
    match result {
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        result => result.map(Some),
    }
}

/// A store's error in our kinds: what may pass by itself is `Unavailable`.
fn from_store(context: impl Into<String>, error: object_store::Error) -> Error {
    use object_store::Error as Store;
    let error_of = match &error {
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => Error::denied,
        Store::InvalidPath { .. } | Store::NotSupported { .. } | Store::UnknownConfigurationKey { .. } => {
            Error::invalid_config
        }
        _ => Error::unavailable,
    };
    error_of(context.into()).with_source(error)
}

#[cfg(test)]
mod tests;
