//! Metadata tables, named behind a `$`: `t$snapshots`, `t$files`, `t$ledger`.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray, UInt64Array,
};
use datafusion::catalog::{MemTable, TableProvider};

use super::engine::ours;
use crate::error::{Error, ErrorKind, Result};
use crate::model::schema::UTC;
use crate::ports::LakeReader;
use crate::seam::View;

const NAMES: [&str; 3] = ["snapshots", "files", "ledger"];

/// The metadata table `name` of the table that `view` shows.
pub(super) async fn table(lake: &dyn LakeReader, view: &View, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
    let columns = match name {
        "snapshots" => snapshots(lake, view).await?,
        "files" => files(lake, view).await?,
        "ledger" => ledger(view),
        _ => {
            let text =
                format!("`{}` has no metadata table `${name}`; there are ${}", view.version.table, NAMES.join(", $"));
            return Err(Error::new(ErrorKind::InvalidRequest, text));
        }
    };
    let broken = |e| Error::bug("build a metadata table").with_source(e);
    let rows = RecordBatch::try_from_iter(columns).map_err(broken)?;
    let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).map_err(ours)?;
    Ok(Some(Arc::new(table)))
}

async fn snapshots(lake: &dyn LakeReader, view: &View) -> Result<Vec<(&'static str, ArrayRef)>> {
    let all = lake.snapshots(&view.version.table).await?;
    let times = TimestampMillisecondArray::from_iter_values(all.iter().map(|s| s.time_ms)).with_timezone(UTC);
    Ok(vec![
        ("snapshot_id", Arc::new(Int64Array::from_iter_values(all.iter().map(|s| s.id)))),
        ("parent_id", Arc::new(all.iter().map(|s| s.parent_id).collect::<Int64Array>())),
        ("committed_at", Arc::new(times)),
        ("operation", Arc::new(StringArray::from_iter_values(all.iter().map(|s| &s.operation)))),
        ("added_rows", Arc::new(UInt64Array::from_iter_values(all.iter().map(|s| s.added_rows)))),
        ("added_files", Arc::new(UInt64Array::from_iter_values(all.iter().map(|s| s.added_files)))),
        ("rows", Arc::new(all.iter().map(|s| s.rows).collect::<UInt64Array>())),
        ("on_main", Arc::new(all.iter().map(|s| Some(s.on_main)).collect::<BooleanArray>())),
    ])
}

async fn files(lake: &dyn LakeReader, view: &View) -> Result<Vec<(&'static str, ArrayRef)>> {
    let manifests = lake.files(&view.version).await?;
    let all: Vec<_> = manifests.iter().flat_map(|files| files.iter()).collect();
    Ok(vec![
        ("path", Arc::new(StringArray::from_iter_values(all.iter().map(|file| &file.path)))),
        ("rows", Arc::new(UInt64Array::from_iter_values(all.iter().map(|file| file.rows)))),
        ("size_bytes", Arc::new(UInt64Array::from_iter_values(all.iter().map(|file| file.size_bytes)))),
        ("spec_id", Arc::new(Int32Array::from_iter_values(all.iter().map(|file| file.spec_id)))),
        ("sort_order_id", Arc::new(all.iter().map(|file| file.sort_order_id).collect::<Int32Array>())),
    ])
}

/// Per partition what is committed and what is visible.
fn ledger(view: &View) -> Vec<(&'static str, ArrayRef)> {
    let committed = view.version.offsets();
    let visible = &view.as_of.offsets;
    vec![
        ("topic", Arc::new(StringArray::from_iter_values(visible.keys().map(|source| source.topic.as_ref())))),
        ("partition", Arc::new(Int32Array::from_iter_values(visible.keys().map(|source| source.partition)))),
        (
            "committed",
            Arc::new(visible.keys().map(|source| committed.get(source).map(|at| at.0)).collect::<Int64Array>()),
        ),
        ("visible", Arc::new(Int64Array::from_iter_values(visible.values().map(|at| at.0)))),
    ]
}
