//! From the tail's batches to hot entries, as they come.

use std::sync::{Arc, OnceLock};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;

use super::entries::{self, Shape};
use super::follow::Sources;
use super::hot::HotBatch;
use super::index::TableIndex;
use crate::error::{ErrorKind, Result};
use crate::seam::TailBatch;

/// Takes the tail's batches as they come, for as long as there is one.
pub(super) async fn take_tail(index: &Arc<TableIndex>, sources: &Sources) -> Result<()> {
    let Some(seam) = &sources.seam else { return std::future::pending().await };
    let mut changed = seam.changes();
    loop {
        changed.borrow_and_update();
        let (offsets, tail) = seam.held();
        index.cut(&offsets);
        for batch in tail {
            if index.has(&batch.source, batch.first, batch.next) {
                continue;
            }
            match heated(batch, index, sources).await {
                Ok((hot, shape)) => index.heat(hot, &shape),
                Err(error) if error.kind() == ErrorKind::InvalidConfig => return Err(error),
                Err(error) => {
                    let table = &index.spec.table;
                    tracing::warn!(%table, error = %error.chain(), "records cannot be found before they are indexed");
                }
            }
        }
        if changed.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// A tail batch as hot entries.
async fn heated(batch: TailBatch, index: &Arc<TableIndex>, sources: &Sources) -> Result<(HotBatch, Arc<Shape>)> {
    let shape = Arc::new(Shape::new(&index.spec, &batch.schema, sources.embedder.dimension())?);
    let (index, embedder, of) = (Arc::clone(index), Arc::clone(&sources.embedder), Arc::clone(&shape));
    let rows = batch.rows.clone();
    let make = move || entries::entries(&rows, &index.spec, &of, &*embedder, 0);
    let entries = sources.compute.run(make).await??;
    let hot = HotBatch {
        source: batch.source,
        first: batch.first,
        next: batch.next,
        offsets: batch.rows.column(batch.offset_column).as_primitive::<Int64Type>().values().to_vec(),
        newest_ms: batch.newest_ms,
        entries,
        words: OnceLock::new(),
    };
    Ok((hot, shape))
}
