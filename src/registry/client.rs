//! One question to the registry over HTTP: addresses, fail-over, what each status means, references. Keeps nothing
//! but which address answered last.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use reqwest::header::ACCEPT;
use reqwest::{Certificate, Identity, Response, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;
use uuid::Uuid;

use super::{Auth, Options};
use crate::error::{Error, ErrorKind, Result};
use crate::ports::{RegisteredSchema, SchemaFormat};

/// Bound of one answer: a registry's own limit on a schema is far below it.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Registries answer with the first where they know it, and all with the second.
const ACCEPTED: &str = "application/vnd.schemaregistry.v1+json, application/json";

#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    endpoints: Vec<Endpoint>,
    /// The endpoint that answered last: asked first, so that a dead one costs its time-out once.
    preferred: AtomicUsize,
}

#[derive(Debug)]
struct Endpoint {
    /// Without user and password, fit for error texts.
    base: Url,
    auth: Auth,
}

/// A schema by its id.
#[derive(Deserialize)]
struct SchemaBody {
    schema: String,
    #[serde(rename = "schemaType")]
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<Reference>,
}

/// A schema as a version of a subject.
#[derive(Deserialize)]
struct VersionBody {
    id: u32,
    #[serde(flatten)]
    body: SchemaBody,
}

#[derive(Deserialize)]
struct Reference {
    name: String,
    subject: String,
    version: u32,
}

/// What a "no such" of the registry looks like; a proxy's does not.
#[derive(Deserialize)]
struct ErrorBody {
    error_code: u32,
}

/// Schemas met on the way to one answer, by subject and version; `None` while its own references are being resolved.
type Met = HashMap<(String, u32), Option<Arc<RegisteredSchema>>>;

impl Client {
    pub(super) fn new(options: &Options) -> Result<Self> {
        // Another part of the process may have chosen a provider before; any of them will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let endpoints = options.urls.iter().map(|url| endpoint(url, &options.auth)).collect::<Result<Vec<_>>>()?;
        if endpoints.is_empty() {
            return Err(Error::invalid_config("the schema registry has no address"));
        }
        Ok(Self { http: http_client(options)?, endpoints, preferred: AtomicUsize::new(0) })
    }

    pub(super) async fn by_id(&self, id: u32) -> Result<Option<Arc<RegisteredSchema>>> {
        let what = format!("schema `{id}`");
        let Some(body) = self.get(&["schemas", "ids", &id.to_string()], &what).await? else { return Ok(None) };
        self.resolve(id, body, &what, &mut Met::new()).await.map(Some)
    }

    /// A GUID names the schema alone: the answer has no id, which is 0 here.
    pub(super) async fn by_guid(&self, guid: Uuid) -> Result<Option<Arc<RegisteredSchema>>> {
        let what = format!("schema `{guid}`");
        let Some(body) = self.get(&["schemas", "guids", &guid.to_string()], &what).await? else { return Ok(None) };
        self.resolve(0, body, &what, &mut Met::new()).await.map(Some)
    }

    pub(super) async fn latest(&self, subject: &str) -> Result<Option<Arc<RegisteredSchema>>> {
        let what = format!("newest schema of subject `{subject}`");
        let path = ["subjects", subject, "versions", "latest"];
        let Some(VersionBody { id, body }) = self.get(&path, &what).await? else { return Ok(None) };
        self.resolve(id, body, &what, &mut Met::new()).await.map(Some)
    }

    /// Fetches what `body` refers to, deepest first. A cycle, which no registry accepts, ends where it closes.
    fn resolve<'a>(
        &'a self,
        id: u32,
        body: SchemaBody,
        what: &'a str,
        met: &'a mut Met,
    ) -> BoxFuture<'a, Result<Arc<RegisteredSchema>>> {
        async move {
            let format = schema_format(body.schema_type.as_deref(), what)?;
            let mut references: Vec<(String, Arc<RegisteredSchema>)> = Vec::new();
            for Reference { name, subject, version } in body.references {
                let Some(schema) = self.referenced(&subject, version, met).await? else { continue };
                for (inner, inner_schema) in schema.references.iter().chain([&(name, Arc::clone(&schema))]) {
                    if !references.iter().any(|(known, _)| known == inner) {
                        references.push((inner.clone(), Arc::clone(inner_schema)));
                    }
                }
            }
            Ok(Arc::new(RegisteredSchema { id, format, text: body.schema, references }))
        }
        .boxed()
    }

    /// `None` where it is being resolved further up.
    async fn referenced(&self, subject: &str, version: u32, met: &mut Met) -> Result<Option<Arc<RegisteredSchema>>> {
        let key = (subject.to_owned(), version);
        if let Some(known) = met.get(&key) {
            return Ok(known.clone());
        }
        met.insert(key.clone(), None);
        let what = format!("version {version} of subject `{subject}`");
        let found = self.get(&["subjects", subject, "versions", &version.to_string()], &what).await?;
        let VersionBody { id, body } = found.ok_or_else(|| {
            Error::unavailable(format!(
                "get {what}: a schema refers to it, and the registry answers that there is none"
            ))
        })?;
        let schema = self.resolve(id, body, &what, met).await?;
        met.insert(key, Some(Arc::clone(&schema)));
        Ok(Some(schema))
    }

    /// The answer of the first endpoint that gives one; a refusal is an answer, silence and nonsense are not.
    async fn get<T: DeserializeOwned>(&self, path: &[&str], what: &str) -> Result<Option<T>> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut last_error = None;
        for n in 0..self.endpoints.len() {
            let index = (first + n) % self.endpoints.len();
            match self.get_from(&self.endpoints[index], path, what).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => last_error = Some(error),
                answer => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return answer;
                }
            }
        }
        Err(last_error.unwrap_or_else(|| Error::bug("the schema registry has no address")))
    }

    async fn get_from<T: DeserializeOwned>(&self, endpoint: &Endpoint, path: &[&str], what: &str) -> Result<Option<T>> {
        let unavailable =
            |found: &str| Error::unavailable(format!("get {what} from registry `{}`: {found}", endpoint.base));
        let mut url = endpoint.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let request = self.http.get(url).header(ACCEPT, ACCEPTED);
        let request = match &endpoint.auth {
            Auth::None => request,
            Auth::Basic { username, password } => request.basic_auth(username, Some(password)),
            Auth::Bearer(token) => request.bearer_auth(token),
        };
        let response = request.send().await.map_err(|e| unavailable("no answer").with_source(e.without_url()))?;
        let status = response.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(Error::new(
                ErrorKind::Denied,
                format!("get {what} from registry `{}`: {status}", endpoint.base),
            ));
        }
        if !status.is_success() && status != StatusCode::NOT_FOUND {
            return Err(unavailable(&status.to_string()));
        }
        let body =
            read(response).await.map_err(|e| e.context(format!("get {what} from registry `{}`", endpoint.base)))?;
        if status.is_success() {
            return serde_json::from_slice(&body)
                .map(Some)
                .map_err(|e| unavailable("not a registry's answer").with_source(e));
        }
        match serde_json::from_slice(&body) {
            Ok(ErrorBody { error_code: 404 | 40401 | 40402 | 40403 }) => Ok(None),
            _ => Err(unavailable("404 that is not the registry's own")),
        }
    }
}

fn endpoint(url: &Url, auth: &Auth) -> Result<Endpoint> {
    let mut base = url.clone();
    // Both fail only for addresses without a host, which the next check refuses.
    let _ = base.set_username("");
    let _ = base.set_password(None);
    if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
        return Err(Error::invalid_config(format!(
            "schema registry address `{base}` is not of the form http(s)://host"
        )));
    }
    let auth = match auth {
        Auth::None if !url.username().is_empty() => {
            Auth::Basic { username: decoded(url.username())?, password: decoded(url.password().unwrap_or_default())? }
        }
        auth => auth.clone(),
    };
    Ok(Endpoint { base, auth })
}

/// Undoes the percent-encoding of an address's user or password.
fn decoded(text: &str) -> Result<String> {
    // A form's pair is decoded by the same rules but for `+`, which is therefore encoded first.
    let pair = format!("v={}", text.replace('+', "%2B").replace('&', "%26"));
    let value = url::form_urlencoded::parse(pair.as_bytes()).next().map(|(_, value)| value.into_owned());
    value.ok_or_else(|| Error::invalid_config("user or password in the schema registry's address cannot be decoded"))
}

fn http_client(options: &Options) -> Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .timeout(options.timeout)
        .connect_timeout(options.timeout)
        .pool_idle_timeout(Duration::from_secs(30))
        .user_agent(concat!("frazil/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = &options.ca_file {
        let authorities = Certificate::from_pem_bundle(&read_file(path)?).map_err(|e| unusable(path).with_source(e))?;
        builder = authorities
            .into_iter()
            .fold(builder.tls_built_in_root_certs(false), reqwest::ClientBuilder::add_root_certificate);
    }
    match (&options.cert_file, &options.key_file) {
        (Some(cert), Some(key)) => {
            let pem = [read_file(cert)?, b"\n".to_vec(), read_file(key)?].concat();
            builder = builder.identity(Identity::from_pem(&pem).map_err(|e| unusable(cert).with_source(e))?);
        }
        (None, None) => {}
        _ => return Err(Error::invalid_config("the schema registry needs both certificate and key file, or none")),
    }
    builder.build().map_err(|e| Error::invalid_config("set up TLS for the schema registry").with_source(e))
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::invalid_config(format!("read TLS file `{}`", path.display())).with_source(e))
}

fn unusable(path: &Path) -> Error {
    Error::invalid_config(format!("TLS file `{}` is not usable PEM", path.display()))
}

async fn read(mut response: Response) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) =
        response.chunk().await.map_err(|e| Error::unavailable("the answer broke off").with_source(e.without_url()))?
    {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(Error::unavailable(format!("the answer is larger than {ANSWER_BYTES_MAX} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The registry leaves the type out for Avro.
fn schema_format(schema_type: Option<&str>, what: &str) -> Result<SchemaFormat> {
    match schema_type {
        None | Some("AVRO") => Ok(SchemaFormat::Avro),
        Some("PROTOBUF") => Ok(SchemaFormat::Protobuf),
        Some("JSON") => Ok(SchemaFormat::Json),
        Some(other) => Err(Error::unavailable(format!("get {what}: its type `{other}` is not known, update frazil"))),
    }
}
