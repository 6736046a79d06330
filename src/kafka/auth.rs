//! AWS MSK's IAM sign-in: tokens for SASL/OAUTHBEARER. All other ways to sign in are librdkafka's own.

use std::time::{Duration, UNIX_EPOCH};

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials as _;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::client::OAuthToken;
use tokio::runtime::Handle;
use url::Url;

use crate::error::{Error, Result};
use crate::runtime::clock::Clock;

/// How long a token is good for; the broker accepts no longer ones.
const LIFETIME: Duration = Duration::from_mins(15);
/// How long the credential chain may take.
const CREDENTIALS_LIMIT: Duration = Duration::from_secs(10);
/// Who asks, for AWS's logs.
const USER_AGENT: &str = concat!("frazil/", env!("CARGO_PKG_VERSION"));

/// Makes tokens from the standard credential chain.
pub(super) struct MskIam {
    region: Option<String>,
    clock: Clock,
    runtime: Handle,
}

impl MskIam {
    /// `region`: `None` takes the chain's.
    pub(super) fn new(region: Option<String>, clock: Clock, runtime: Handle) -> Self {
        Self { region, clock, runtime }
    }

    /// A fresh token. Blocks its thread, which must not be the runtime's, up to the limit.
    pub(super) fn token(&self) -> Result<OAuthToken> {
        let (credentials, region) = self
            .runtime
            .block_on(async { self.clock.timeout(CREDENTIALS_LIMIT, Box::pin(self.credentials())).await })
            .ok_or_else(|| Error::unavailable("aws credentials for kafka: no answer in time"))??;
        token(&credentials, &region, self.clock.now_ms())
    }

    async fn credentials(&self) -> Result<(Credentials, String)> {
        let http =
            aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http);
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(region.clone()));
        }
        let config = loader.load().await;
        let region =
            config.region().ok_or_else(|| Error::invalid_config("aws region for kafka: set `frazil.aws.region`"))?;
        let provider =
            config.credentials_provider().ok_or_else(|| Error::denied("aws credentials for kafka: none configured"))?;
        let credentials = provider
            .provide_credentials()
            .await
            .map_err(|e| Error::denied("aws credentials for kafka").with_source(e))?;
        Ok((credentials, region.to_string()))
    }
}

/// The token: a presigned `kafka-cluster:Connect` URL in base64url, as AWS's own signers make it.
fn token(credentials: &Credentials, region: &str, now_ms: i64) -> Result<OAuthToken> {
    let bug = |e: Box<dyn std::error::Error + Send + Sync>| Error::bug("sign the kafka token").with_source(e);
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(LIFETIME);
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("kafka-cluster")
        .time(UNIX_EPOCH + Duration::from_millis(u64::try_from(now_ms).unwrap_or(0)))
        .settings(settings)
        .build()
        .map_err(|e| bug(e.into()))?
        .into();
    let endpoint = format!("https://kafka.{region}.amazonaws.com/?Action=kafka-cluster%3AConnect");
    let request = SignableRequest::new("GET", endpoint.as_str(), std::iter::empty(), SignableBody::Bytes(&[]))
        .map_err(|e| bug(e.into()))?;
    let (signature, _) = sign(request, &params).map_err(|e| bug(e.into()))?.into_parts();
    let mut url = Url::parse(&endpoint).map_err(|e| bug(e.into()))?;
    url.query_pairs_mut()
        .extend_pairs(signature.params().iter().map(|(name, value)| (*name, value.as_ref())))
        .append_pair("User-Agent", USER_AGENT);
    let lifetime_ms = now_ms + i64::try_from(LIFETIME.as_millis()).unwrap_or(i64::MAX);
    Ok(OAuthToken { token: URL_SAFE_NO_PAD.encode(url.as_str()), principal_name: "frazil".to_owned(), lifetime_ms })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_token_is_a_presigned_url() {
        let credentials = Credentials::new("AKID", "SECRET", Some("a+b/c=".to_owned()), None, "test");
        let made = token(&credentials, "eu-west-1", 1_700_000_000_000).unwrap();
        assert_eq!(made.lifetime_ms, 1_700_000_900_000);
        let url = String::from_utf8(URL_SAFE_NO_PAD.decode(&made.token).unwrap()).unwrap();
        let url = Url::parse(&url).unwrap();
        assert_eq!(url.host_str(), Some("kafka.eu-west-1.amazonaws.com"));
        let mut query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        let signature = query.remove("X-Amz-Signature").unwrap();
        assert!(signature.len() == 64 && signature.bytes().all(|b| b.is_ascii_hexdigit()));
        let expected = [
            ("Action", "kafka-cluster:Connect"),
            ("User-Agent", USER_AGENT),
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", "AKID/20231114/eu-west-1/kafka-cluster/aws4_request"),
            ("X-Amz-Date", "20231114T221320Z"),
            ("X-Amz-Expires", "900"),
            ("X-Amz-Security-Token", "a+b/c="),
            ("X-Amz-SignedHeaders", "host"),
        ];
        assert_eq!(query, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    }
}
