//! The object stores of the clouds: options by `object_store`'s names over the environment, bounded retries.
//! Credentials of AWS come from `credentials`, those of the others from `object_store` itself.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};

use crate::error::{Error, Result};
use crate::ports::Properties;

use super::location::{Location, Scheme};
use super::{Bucket, StorageOptions, credentials, from_store};

/// One request: a part of 8 MiB passes in it on a line of 3 Mbit/s.
const REQUEST_TIMEOUT: &str = "30 s";
/// No further try of a request after this long; the caller's own back-off takes over.
const RETRY_FOR: Duration = Duration::from_secs(30);
const RETRIES_MAX: usize = 6;
/// What `object_store` signs for where no region is set.
const DEFAULT_REGION: &str = "us-east-1";
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Refuses options that no store knows.
pub(super) fn validate(options: &StorageOptions) -> Result<()> {
    for name in options.properties.keys() {
        let known = name.parse::<AmazonS3ConfigKey>().is_ok()
            || name.parse::<AzureConfigKey>().is_ok()
            || name.parse::<GoogleConfigKey>().is_ok();
        if !known {
            return Err(Error::invalid_config(format!("`storage.{name}` is no option of an object store")));
        }
    }
    Ok(())
}

/// The store that holds `location`, which is neither local nor memory.
pub(super) async fn open(location: &Location, options: &StorageOptions) -> Result<Bucket> {
    let mut access = Properties::new();
    let built = match location.scheme {
        Scheme::S3 => {
            let builder = s3(&location.authority, options).await?;
            access = s3_access(&builder, &location.authority);
            builder.build().map(|s| Arc::new(s) as Arc<dyn ObjectStore>)
        }
        Scheme::Gcs => gcs(&location.authority, options).build().map(|s| Arc::new(s) as _),
        Scheme::Azure(_) => azure(&location.root(), options).build().map(|s| Arc::new(s) as _),
        Scheme::File | Scheme::Memory => return Err(Error::bug("a local location was taken for a bucket")),
    };
    let store = built.map_err(|e| from_store(format!("open store `{}`", location.root()), e))?;
    Ok(Bucket { store, access })
}

/// Where the bucket is, for other engines. AWS itself needs no more than the region.
fn s3_access(builder: &AmazonS3Builder, bucket: &str) -> Properties {
    let get = |key| builder.get_config_value(&key);
    let region = get(AmazonS3ConfigKey::Region).unwrap_or_else(|| DEFAULT_REGION.to_owned());
    let mut access = Properties::from([("client.region".to_owned(), region)]);
    if let Some(endpoint) = get(AmazonS3ConfigKey::S3Endpoint).or_else(|| get(AmazonS3ConfigKey::Endpoint)) {
        let in_host = get(AmazonS3ConfigKey::VirtualHostedStyleRequest).is_some_and(|value| value == "true");
        // `object_store` wants the bucket in such an endpoint, engines put it there themselves.
        let endpoint = if in_host { endpoint.replacen(&format!("://{bucket}."), "://", 1) } else { endpoint };
        access.insert("s3.endpoint".to_owned(), endpoint);
        access.insert("s3.path-style-access".to_owned(), (!in_host).to_string());
    }
    access
}

async fn s3(bucket: &str, options: &StorageOptions) -> Result<AmazonS3Builder> {
    let mut builder = AmazonS3Builder::from_env()
        .with_retry(retries())
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), REQUEST_TIMEOUT);
    let (mut own_credentials, mut plain_http) = (false, false);
    for (name, value) in &options.properties {
        let Ok(key) = name.parse::<AmazonS3ConfigKey>() else { continue };
        own_credentials |= matches!(key, AmazonS3ConfigKey::AccessKeyId | AmazonS3ConfigKey::SkipSignature);
        plain_http |= key == AmazonS3ConfigKey::Endpoint && value.starts_with("http://");
        builder = builder.with_config(key, value);
    }
    if plain_http {
        builder = builder.with_allow_http(true);
    }
    if !own_credentials {
        let chain = credentials::AwsChain::load().await?;
        if builder.get_config_value(&AmazonS3ConfigKey::Region).is_none()
            && let Some(region) = chain.region()
        {
            builder = builder.with_region(region);
        }
        builder = builder.with_credentials(Arc::new(chain));
    }
    Ok(builder.with_bucket_name(bucket))
}

fn gcs(bucket: &str, options: &StorageOptions) -> GoogleCloudStorageBuilder {
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_retry(retries())
        .with_config(GoogleConfigKey::Client(ClientConfigKey::Timeout), REQUEST_TIMEOUT);
    for (name, value) in &options.properties {
        if let Ok(key) = name.parse::<GoogleConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    builder.with_bucket_name(bucket)
}

fn azure(root: &str, options: &StorageOptions) -> MicrosoftAzureBuilder {
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_retry(retries())
        .with_config(AzureConfigKey::Client(ClientConfigKey::Timeout), REQUEST_TIMEOUT);
    for (name, value) in &options.properties {
        if let Ok(key) = name.parse::<AzureConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    builder.with_url(root)
}

fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { max_backoff: RETRY_PAUSE_MAX, ..BackoffConfig::default() },
        max_retries: RETRIES_MAX,
        retry_timeout: RETRY_FOR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(options: &[(&str, &str)], expected: &[(&str, &str)]) {
        let option =
            |builder: AmazonS3Builder, (name, value): &(&str, &str)| builder.with_config(name.parse().unwrap(), *value);
        let builder = options.iter().fold(AmazonS3Builder::new().with_bucket_name("lake"), option);
        let expected = expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(s3_access(&builder, "lake"), expected);
    }

    #[test]
    fn engines_are_told_where_a_bucket_is_and_no_secret() {
        check(&[], &[("client.region", "us-east-1")]);
        check(&[("aws_region", "eu-north-1"), ("aws_secret_access_key", "x")], &[("client.region", "eu-north-1")]);
        check(
            &[("aws_endpoint", "http://127.0.0.1:9000"), ("aws_access_key_id", "x"), ("aws_session_token", "x")],
            &[
                ("client.region", "us-east-1"),
                ("s3.endpoint", "http://127.0.0.1:9000"),
                ("s3.path-style-access", "true"),
            ],
        );
        check(
            &[("aws_endpoint", "https://lake.s3.example.com"), ("aws_virtual_hosted_style_request", "true")],
            &[
                ("client.region", "us-east-1"),
                ("s3.endpoint", "https://s3.example.com"),
                ("s3.path-style-access", "false"),
            ],
        );
    }
}
