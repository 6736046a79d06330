//! Tests of the storage stack on memory and on a local folder.

use futures::TryStreamExt;
use iceberg::io::FileIO;

use super::*;
use crate::error::ErrorKind;

async fn listed(stores: &Stores, folder: &str) -> Vec<String> {
    let files: Vec<StoredFile> = stores.list(folder).await.unwrap().try_collect().await.unwrap();
    let mut locations: Vec<String> = files.into_iter().map(|file| file.location).collect();
    locations.sort();
    locations
}

/// Everything that holds on any store, in the folder `root` (canonical).
async fn check(stores: &Stores, root: &str) {
    let at = |name: &str| format!("{root}/{name}");
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());

    assert_eq!(stores.read(&at("a/x")).await.unwrap(), None);
    stores.write(&at("a/x"), bytes("one")).await.unwrap();
    stores.write(&at("a/x"), bytes("two!")).await.unwrap();
    assert_eq!(stores.read(&at("a/x")).await.unwrap(), Some(bytes("two!")));
    assert_eq!(stores.size(&at("a/x")).await.unwrap(), Some(4));

    assert!(stores.put_if_absent(&at("a/y"), bytes("first")).await.unwrap());
    assert!(!stores.put_if_absent(&at("a/y"), bytes("second")).await.unwrap());
    assert_eq!(stores.read(&at("a/y")).await.unwrap(), Some(bytes("first")));

    // A partition value keeps its escapes: the key is the location's own text.
    stores.write(&at("d/p=a%2Fb/z"), bytes("z")).await.unwrap();
    assert_eq!(listed(stores, root).await, [at("a/x"), at("a/y"), at("d/p=a%2Fb/z")]);

    stores.delete(&at("a/x")).await.unwrap();
    stores.delete(&at("a/x")).await.unwrap();
    assert!(!stores.exists(&at("a/x")).await.unwrap());

    check_uploads(stores, root).await;
    check_file_io(&stores.file_io(), root).await;
    stores.delete_folder(root).await.unwrap();
    assert!(listed(stores, root).await.is_empty());
}

async fn check_uploads(stores: &Stores, root: &str) {
    for size in [0_usize, 3, 8 << 20, (8 << 20) + 1, 21 << 20] {
        let location = format!("{root}/up/{size}");
        let content = Bytes::from((0..size).map(|n| u8::try_from(n % 251).unwrap()).collect::<Vec<u8>>());
        let mut upload = stores.upload(&location).await.unwrap();
        for piece in content.chunks(3 << 20) {
            upload.write(content.slice_ref(piece)).await.unwrap();
        }
        assert!(!stores.exists(&location).await.unwrap(), "{size} bytes are visible before the end");
        assert_eq!(upload.finish().await.unwrap(), size as u64);
        assert!(stores.read(&location).await.unwrap() == Some(content), "{size} bytes come back as written");
    }
    let location = format!("{root}/up/given-up");
    let mut upload = stores.upload(&location).await.unwrap();
    upload.write(Bytes::from(vec![0; 9 << 20])).await.unwrap();
    upload.abort().await;
    assert!(!stores.exists(&location).await.unwrap());
}

async fn check_file_io(io: &FileIO, root: &str) {
    let output = io.new_output(format!("{root}/io/f")).unwrap();
    let mut writer = output.writer().await.unwrap();
    writer.write(Bytes::from_static(b"0123")).await.unwrap();
    writer.write(Bytes::from_static(b"456789")).await.unwrap();
    writer.close().await.unwrap();
    let input = output.to_input_file();
    assert_eq!(input.metadata().await.unwrap().size, 10);
    assert_eq!(input.reader().await.unwrap().read(2..5).await.unwrap(), Bytes::from_static(b"234"));
    let absent = io.new_input(format!("{root}/io/none")).unwrap().read().await.unwrap_err();
    assert_eq!(from_iceberg("read", absent).kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn memory_holds_every_location() {
    for root in ["s3://bucket/base", "file:///base", "memory:///base", "abfss://c@account.dfs.core.windows.net/base"] {
        check(&Stores::memory(), root).await;
    }
}

#[tokio::test]
async fn a_local_folder_holds_files_and_no_staging() {
    let folder = tempfile::tempdir().unwrap();
    let stores = Stores::new(StorageOptions::default()).unwrap();
    let root = stores.normalise(folder.path().join("new/deep").to_str().unwrap()).unwrap();
    check(&stores, &root).await;

    // The staging names are hidden from listings, so the folder itself is looked at.
    let left: Vec<_> = std::fs::read_dir(folder.path().join("new/deep/up")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_dropped_upload_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let stores = Stores::new(StorageOptions::default()).unwrap();
    let location = folder.path().join("f").to_str().unwrap().to_owned();
    let mut upload = stores.upload(&location).await.unwrap();
    upload.write(Bytes::from(vec![0; 9 << 20])).await.unwrap();
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    drop(upload);
    while std::fs::read_dir(folder.path()).unwrap().count() > 0 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn options_are_checked_and_never_shown() {
    let options = |name: &str| StorageOptions { properties: BTreeMap::from([(name.to_owned(), "hunter2".to_owned())]) };
    assert_eq!(Stores::new(options("aws_secret_key_of")).unwrap_err().kind(), ErrorKind::InvalidConfig);
    let stores = Stores::new(options("aws_secret_access_key")).unwrap();
    assert_eq!(format!("{stores:?}"), r#"Stores { options: {"aws_secret_access_key"}, .. }"#);
}

#[tokio::test]
async fn static_keys_open_a_bucket_without_a_request() {
    let properties = [
        ("aws_access_key_id", "key"),
        ("aws_secret_access_key", "secret"),
        ("aws_endpoint", "http://127.0.0.1:1"),
        ("aws_region", "nowhere-1"),
    ];
    let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let stores = Stores::new(StorageOptions { properties }).unwrap();
    let (first, path) = stores.resolve("s3://bucket/a/b").await.unwrap();
    let (second, _) = stores.resolve("s3a://bucket/c").await.unwrap();
    assert_eq!(path.as_ref(), "a/b");
    assert!(Arc::ptr_eq(&first, &second));
}
