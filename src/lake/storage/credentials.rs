//! AWS credentials by the SDK's whole chain (environment, profiles, SSO, web identity, ECS, IMDS) for `object_store`,
//! whose own chain lacks profiles and SSO.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use tokio::sync::Mutex;

use crate::error::{Error, Result};
use crate::runtime::clock::Clock;

/// Credentials are fetched anew this long before they expire: longer than one request with its retries.
const REFRESH_BEFORE_MS: i64 = 120_000;
/// Credentials without an expiry are read again after this long, so that a rotated profile is seen.
const REREAD_AFTER_MS: i64 = 600_000;

/// The chain with the credentials that it gave last.
pub(super) struct AwsChain {
    config: SdkConfig,
    clock: Clock,
    cached: Mutex<Option<Cached>>,
}

#[derive(Clone)]
struct Cached {
    credential: Arc<AwsCredential>,
    refresh_at_ms: i64,
    expires_at_ms: i64,
}

impl AwsChain {
    /// Reads profiles and region; credentials are fetched when they are first needed.
    pub(super) async fn load() -> Result<Self> {
        let http =
            aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        let config = aws_config::defaults(BehaviorVersion::latest()).http_client(http).load().await;
        if config.credentials_provider().is_none() {
            return Err(Error::denied("no source of aws credentials is set up"));
        }
        Ok(Self { config, clock: Clock::system(), cached: Mutex::new(None) })
    }

    /// The region that the chain names.
    pub(super) fn region(&self) -> Option<String> {
        self.config.region().map(ToString::to_string)
    }

    async fn fetch(&self) -> Result<Cached, CredentialsError> {
        let provider =
            self.config.credentials_provider().ok_or_else(|| CredentialsError::not_loaded("no provider is set up"))?;
        let found = provider.provide_credentials().await?;
        let expires_at_ms = found
            .expiry()
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok())
            .and_then(|since| i64::try_from(since.as_millis()).ok());
        let refresh_at_ms = expires_at_ms
            .map_or_else(|| self.clock.now_ms() + REREAD_AFTER_MS, |expires_at_ms| expires_at_ms - REFRESH_BEFORE_MS);
        let credential = AwsCredential {
            key_id: found.access_key_id().to_owned(),
            secret_key: found.secret_access_key().to_owned(),
            token: found.session_token().map(str::to_owned),
        };
        Ok(Cached { credential: Arc::new(credential), refresh_at_ms, expires_at_ms: expires_at_ms.unwrap_or(i64::MAX) })
    }
}

impl std::fmt::Debug for AwsChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AwsChain")
    }
}

#[async_trait]
impl CredentialProvider for AwsChain {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut cached = self.cached.lock().await;
        let now_ms = self.clock.now_ms();
        if let Some(held) = cached.as_ref()
            && now_ms < held.refresh_at_ms
        {
            return Ok(Arc::clone(&held.credential));
        }
        match self.fetch().await {
            Ok(fresh) => Ok(Arc::clone(&cached.insert(fresh).credential)),
            Err(error) => match cached.as_ref() {
                // The source may be away for a moment while what it gave is still good.
                Some(held) if now_ms < held.expires_at_ms => Ok(Arc::clone(&held.credential)),
                _ => Err(refused(error)),
            },
        }
    }
}

fn refused(error: CredentialsError) -> object_store::Error {
    match error {
        CredentialsError::CredentialsNotLoaded(_) | CredentialsError::InvalidConfiguration(_) => {
            object_store::Error::Unauthenticated { path: "aws credentials".to_owned(), source: Box::new(error) }
        }
        _ => object_store::Error::Generic { store: "aws credentials", source: Box::new(error) },
    }
}
