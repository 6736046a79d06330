//! The [`CatalogView`] port: what other engines see of the catalog. Metadata files are passed on as they were written,
//! never through iceberg's own types, which would drop what they do not know.

use std::collections::BTreeMap;
use std::io::Read;

use async_trait::async_trait;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;

use super::tables::IcebergLake;
use crate::error::{Error, Result};
use crate::model::ids::TableName;
use crate::ports::{CatalogView, Properties, StoredMetadata};

/// What a compressed metadata file begins with, whatever its name says.
const GZIP: [u8; 2] = [0x1f, 0x8b];

#[async_trait]
impl CatalogView for IcebergLake {
    async fn namespaces(&self) -> Result<BTreeMap<Vec<String>, Properties>> {
        let mut namespaces = self.committer.catalog.namespaces().await?;
        for table in self.committer.catalog.list().await? {
            namespaces.entry(table.namespace).or_default();
        }
        Ok(namespaces)
    }

    async fn tables(&self) -> Result<Vec<TableName>> {
        self.committer.catalog.list().await
    }

    async fn metadata_location(&self, table: &TableName) -> Result<Option<String>> {
        self.committer.catalog.location(table).await
    }

    async fn metadata(&self, table: &TableName) -> Result<Option<StoredMetadata>> {
        let mut missing = None;
        // A writer that deletes old metadata may have overtaken this; each turn means that it has committed.
        while let Some(location) = self.metadata_location(table).await? {
            if let Some(bytes) = self.committer.stores.read(&location).await? {
                let json = plain(&location, bytes)?;
                return Ok(Some(StoredMetadata { location, json }));
            }
            if missing.as_ref() == Some(&location) {
                return Err(Error::corrupt(format!("metadata file `{location}` of table `{table}` is missing")));
            }
            missing = Some(location);
        }
        Ok(None)
    }

    async fn access(&self, location: &str) -> Result<Properties> {
        self.committer.stores.access(location).await
    }
}

/// A metadata file without its compression.
pub(super) fn plain(location: &str, bytes: Bytes) -> Result<Bytes> {
    if !bytes.starts_with(&GZIP) {
        return Ok(bytes);
    }
    let mut json = Vec::new();
    let unpacked = MultiGzDecoder::new(bytes.as_ref()).read_to_end(&mut json);
    unpacked.map_err(|e| Error::corrupt(format!("unpack metadata file `{location}`")).with_source(e))?;
    Ok(json.into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::ErrorKind;
    use crate::lake::LakeOptions;
    use crate::lake::catalog::Catalog;
    use crate::lake::catalog::memory::MemoryCatalog;
    use crate::lake::catalog::tables::{creation, name};
    use crate::lake::storage::Stores;
    use crate::runtime::clock::Clock;
    use crate::runtime::compute::Compute;

    #[tokio::test]
    async fn metadata_is_passed_on_as_it_was_written() {
        let (clock, stores) = (Clock::system(), Stores::memory());
        let catalog = Arc::new(MemoryCatalog::new("memory:///w", clock.clone()));
        let lake = IcebergLake::new(
            Arc::clone(&catalog) as Arc<dyn Catalog>,
            stores.clone(),
            Compute::inline(),
            clock,
            &LakeOptions { keep_snapshots: 1, writer_bytes: 1 << 20 },
        );
        let table = name("n.m.t");
        assert_eq!(lake.metadata(&table).await.unwrap(), None);
        let location = catalog.create(&table, creation()).await.unwrap().metadata_location;
        assert_eq!(lake.namespaces().await.unwrap().into_keys().collect::<Vec<_>>(), [["n", "m"]]);
        assert_eq!(lake.metadata(&table).await.unwrap_err().kind(), ErrorKind::Corrupt, "its file is not there");

        let json = Bytes::from_static(b"{\"format-version\": 9, \"of tomorrow\": 1.0}");
        stores.write(&location, json.clone()).await.unwrap();
        let stored = StoredMetadata { location: location.clone(), json };
        assert_eq!(lake.metadata(&table).await.unwrap(), Some(stored.clone()));

        let mut packed = Vec::new();
        flate2::read::GzEncoder::new(stored.json.as_ref(), flate2::Compression::fast())
            .read_to_end(&mut packed)
            .unwrap();
        stores.write(&location, packed.clone().into()).await.unwrap();
        assert_eq!(lake.metadata(&table).await.unwrap(), Some(stored));
        stores.write(&location, Bytes::copy_from_slice(&packed[..packed.len() / 2])).await.unwrap();
        assert_eq!(lake.metadata(&table).await.unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(lake.access(&location).await.unwrap(), Properties::new());
    }
}
