//! iceberg's storage traits over [`Stores`], and the way back from its errors to ours.

use std::error::Error as StdError;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use iceberg::io::{
    FileIO, FileIOBuilder, FileMetadata, FileRead, FileWrite, InputFile, OutputFile, Storage, StorageConfig,
    StorageFactory,
};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

use super::{StorageOptions, Stores, Upload, from_store};

/// iceberg's view of `stores`.
pub(super) fn over(stores: Stores) -> FileIO {
    FileIOBuilder::new(Arc::new(Files { stores })).build()
}

/// Both of iceberg's traits in one. They ask for serde so that engines can ship tasks; Frazil never does, and what is
/// read back has only the environment's settings.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Files {
    #[serde(skip, default = "unconfigured")]
    stores: Stores,
}

fn unconfigured() -> Stores {
    Stores::with(StorageOptions::default(), false)
}

#[typetag::serde(name = "frazil")]
impl StorageFactory for Files {
    fn build(&self, _: &StorageConfig) -> iceberg::Result<Arc<dyn Storage>> {
        Ok(Arc::new(self.clone()))
    }
}

#[async_trait]
#[typetag::serde(name = "frazil")]
impl Storage for Files {
    async fn exists(&self, path: &str) -> iceberg::Result<bool> {
        self.stores.exists(path).await.map_err(into_iceberg)
    }

    async fn metadata(&self, path: &str) -> iceberg::Result<FileMetadata> {
        let size = self.stores.size(path).await.map_err(into_iceberg)?;
        Ok(FileMetadata { size: size.ok_or_else(|| missing(path))? })
    }

    async fn read(&self, path: &str) -> iceberg::Result<Bytes> {
        self.stores.read(path).await.map_err(into_iceberg)?.ok_or_else(|| missing(path))
    }

    async fn reader(&self, path: &str) -> iceberg::Result<Box<dyn FileRead>> {
        let (store, key) = self.stores.resolve(path).await.map_err(into_iceberg)?;
        Ok(Box::new(Reader { store, key, location: path.to_owned() }))
    }

    async fn write(&self, path: &str, bs: Bytes) -> iceberg::Result<()> {
        self.stores.write(path, bs).await.map_err(into_iceberg)
    }

    async fn writer(&self, path: &str) -> iceberg::Result<Box<dyn FileWrite>> {
        Ok(Box::new(Writer { upload: Some(self.stores.upload(path).await.map_err(into_iceberg)?) }))
    }

    async fn delete(&self, path: &str) -> iceberg::Result<()> {
        self.stores.delete(path).await.map_err(into_iceberg)
    }

    async fn delete_prefix(&self, path: &str) -> iceberg::Result<()> {
        self.stores.delete_folder(path).await.map_err(into_iceberg)
    }

    async fn delete_stream(&self, mut paths: BoxStream<'static, String>) -> iceberg::Result<()> {
        while let Some(path) = paths.next().await {
            self.delete(&path).await?;
        }
        Ok(())
    }

    fn new_input(&self, path: &str) -> iceberg::Result<InputFile> {
        Ok(InputFile::new(Arc::new(self.clone()), path.to_owned()))
    }

    fn new_output(&self, path: &str) -> iceberg::Result<OutputFile> {
        Ok(OutputFile::new(Arc::new(self.clone()), path.to_owned()))
    }
}

struct Reader {
    store: Arc<dyn ObjectStore>,
    key: Path,
    location: String,
}

#[async_trait]
impl FileRead for Reader {
    async fn read(&self, range: Range<u64>) -> iceberg::Result<Bytes> {
        match self.store.get_range(&self.key, range).await {
            Err(object_store::Error::NotFound { .. }) => Err(missing(&self.location)),
            read => read.map_err(|e| into_iceberg(from_store(format!("read file `{}`", self.location), e))),
        }
    }
}

struct Writer {
    upload: Option<Upload>,
}

#[async_trait]
impl FileWrite for Writer {
    async fn write(&mut self, bs: Bytes) -> iceberg::Result<()> {
        let upload = self.upload.as_mut().ok_or_else(closed)?;
        upload.write(bs).await.map_err(into_iceberg)
    }

    async fn close(&mut self) -> iceberg::Result<()> {
        let upload = self.upload.take().ok_or_else(closed)?;
        upload.finish().await.map(drop).map_err(into_iceberg)
    }
}

fn closed() -> iceberg::Error {
    into_iceberg(Error::bug("a file is written after it was closed"))
}

fn missing(location: &str) -> iceberg::Error {
    into_iceberg(Error::corrupt(format!("file `{location}` is missing")))
}

fn into_iceberg(error: Error) -> iceberg::Error {
    iceberg::Error::new(iceberg::ErrorKind::Unexpected, "storage").with_source(error)
}

/// An error out of iceberg in our kinds: what storage said keeps its kind, unreadable metadata is `Corrupt`, and
/// everything else breaks an assumption of ours.
pub fn from_iceberg(context: impl Into<String>, error: iceberg::Error) -> Error {
    let mut cause = StdError::source(&error);
    while let Some(inner) = cause {
        if let Some(own) = inner.downcast_ref::<Error>() {
            return Error::new(own.kind(), context).with_source(error);
        }
        cause = inner.source();
    }
    let kind = match error.kind() {
        iceberg::ErrorKind::DataInvalid | iceberg::ErrorKind::FeatureUnsupported => ErrorKind::Corrupt,
        _ => ErrorKind::Bug,
    };
    Error::new(kind, context).with_source(error)
}
