//! Local files that survive power loss: `object_store`'s local store with fsync of each file and its folders.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// Folders known to be on disk with all their parents. Beyond this many the memory starts over, which costs only time.
const KNOWN_FOLDERS_MAX: usize = 4096;

/// The local file system: what it has answered is on disk. Keys are absolute paths without their first slash.
#[derive(Debug, Clone, Default)]
pub(super) struct DurableFiles {
    inner: LocalFileSystem,
    folders: Arc<Mutex<HashSet<PathBuf>>>,
}

impl DurableFiles {
    async fn blocking<T: Send + 'static>(
        &self,
        path: PathBuf,
        work: impl FnOnce(&Self, &FsPath) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let own = self.clone();
        let shown = path.display().to_string();
        tokio::task::spawn_blocking(move || work(&own, &path)).await?.map_err(|source| from_io(shown, source))
    }

    /// Writes a staging file, makes it durable, then gives it its name: the name never shows a torn file.
    fn put(&self, path: &FsPath, payload: &PutPayload, mode: &PutMode) -> io::Result<()> {
        let (mut file, staging) = staged(path)?;
        let written = payload.iter().try_for_each(|part| file.write_all(part)).and_then(|()| file.sync_all());
        let named = written.and_then(|()| match mode {
            PutMode::Create => fs::hard_link(&staging, path).and_then(|()| fs::remove_file(&staging)),
            PutMode::Overwrite | PutMode::Update(_) => fs::rename(&staging, path),
        });
        if named.is_err() {
            let _ = fs::remove_file(&staging);
        }
        named.and_then(|()| self.sync_folder(path))
    }

    /// Makes a file's name durable. The first file of a folder syncs all parents, since any of them may be new.
    fn sync_folder(&self, path: &FsPath) -> io::Result<()> {
        let Some(folder) = path.parent() else { return Ok(()) };
        let known = self.folders.lock().unwrap_or_else(PoisonError::into_inner).contains(folder);
        File::open(folder)?.sync_all()?;
        if known {
            return Ok(());
        }
        for parent in folder.ancestors().skip(1) {
            match File::open(parent).and_then(|file| file.sync_all()) {
                // A parent that may not be read was not made here.
                Err(error) if error.kind() != ErrorKind::PermissionDenied => return Err(error),
                _ => {}
            }
        }
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        if folders.len() >= KNOWN_FOLDERS_MAX {
            folders.clear();
        }
        folders.insert(folder.to_owned());
        Ok(())
    }
}

/// A new file beside `path`, named as `object_store` names its own: listings leave those out.
fn staged(path: &FsPath) -> io::Result<(File, PathBuf)> {
    let mut number = 1_u32;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(format!("#{number}"));
        let staging = PathBuf::from(name);
        match OpenOptions::new().write(true).create_new(true).open(&staging) {
            Ok(file) => return Ok((file, staging)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let Some(folder) = path.parent().filter(|folder| !folder.exists()) else { return Err(error) };
                fs::create_dir_all(folder)?;
            }
            Err(error) => return Err(error),
        }
    }
}

fn from_io(path: String, source: io::Error) -> object_store::Error {
    match source.kind() {
        ErrorKind::NotFound => object_store::Error::NotFound { path, source: Box::new(source) },
        ErrorKind::AlreadyExists => object_store::Error::AlreadyExists { path, source: Box::new(source) },
        ErrorKind::PermissionDenied => object_store::Error::PermissionDenied { path, source: Box::new(source) },
        _ => object_store::Error::Generic { store: "local files", source: Box::new(source) },
    }
}

impl fmt::Display for DurableFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("local files")
    }
}

#[async_trait]
impl ObjectStore for DurableFiles {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if matches!(opts.mode, PutMode::Update(_)) {
            return Err(object_store::Error::NotImplemented {
                operation: "conditional update".to_owned(),
                implementer: self.to_string(),
            });
        }
        let path = self.inner.path_to_filesystem(location)?;
        self.blocking(path, move |own, path| own.put(path, &payload, &opts.mode)).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let path = self.inner.path_to_filesystem(location)?;
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        Ok(Box::new(DurableUpload { inner, files: self.clone(), path }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// An upload whose completion means that the file is on disk. Nobody refers to a file before its completion, so the
/// order of naming and syncing does not matter here.
#[derive(Debug)]
struct DurableUpload {
    inner: Box<dyn MultipartUpload>,
    files: DurableFiles,
    path: PathBuf,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.inner.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.inner.complete().await?;
        let sync =
            |files: &DurableFiles, path: &FsPath| File::open(path)?.sync_all().and_then(|()| files.sync_folder(path));
        self.files.blocking(self.path.clone(), sync).await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}
