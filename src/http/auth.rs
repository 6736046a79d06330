//! Who asks, and whether they may: bearer tokens, of which only hashes are known, and their scopes.

use std::fmt::Write;
use std::str::FromStr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::http::error::Refusal;

const HASH_PREFIX: &str = "sha256:";

/// What a principal may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Read metrics.
    Metrics,
    /// Search.
    ReadSearch,
    /// Ask with SQL, and see what tables there are.
    ReadSql,
    /// Look into topics and their schemas.
    ReadKafka,
    /// Read tables and their state: all of the above.
    Read,
    /// Read, and commit to tables.
    Write,
    /// Everything.
    Admin,
}

impl Scope {
    const ALL: [Self; 7] =
        [Self::Metrics, Self::ReadSearch, Self::ReadSql, Self::ReadKafka, Self::Read, Self::Write, Self::Admin];

    /// True where whoever has this scope may do what `needed` stands for.
    #[must_use]
    pub fn includes(self, needed: Self) -> bool {
        match self {
            Self::Metrics | Self::ReadSearch | Self::ReadSql | Self::ReadKafka => self == needed,
            Self::Read => !matches!(needed, Self::Write | Self::Admin),
            Self::Write => needed != Self::Admin,
            Self::Admin => true,
        }
    }

    /// Its name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::ReadSearch => "read:search",
            Self::ReadSql => "read:sql",
            Self::ReadKafka => "read:kafka",
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Scope {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            Error::invalid_config(format!("scope `{text}` is none of {known}"))
        })
    }
}

/// Who asks: in the extensions of every request whose sender is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The token's name; `local` where no tokens are configured.
    pub name: Arc<str>,
    /// What it was given.
    pub scopes: Arc<[Scope]>,
}

impl Principal {
    /// True where one of its scopes includes `needed`.
    #[must_use]
    pub fn may(&self, needed: Scope) -> bool {
        self.scopes.iter().any(|scope| scope.includes(needed))
    }
}

/// A token as it is configured.
#[derive(Clone)]
pub struct TokenOptions {
    /// Whose it is.
    pub name: String,
    /// Its hash, as [`hash_token`] writes it.
    pub hash: String,
    /// Names of scopes.
    pub scopes: Vec<String>,
}

/// What the configuration keeps of a token: `sha256:` and the hash in hex. A token is a long random text, so that a
/// fast hash is enough.
#[must_use]
pub fn hash_token(token: &str) -> String {
    Sha256::digest(token).iter().fold(HASH_PREFIX.to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The tokens that open the listener; none of them: whoever reaches it may do everything.
#[derive(Clone)]
pub(super) struct Tokens {
    tokens: Arc<[Token]>,
    local: Principal,
}

struct Token {
    hash: [u8; 32],
    principal: Principal,
}

impl Tokens {
    /// # Errors
    /// `InvalidConfig` where a hash or a scope cannot be read.
    pub(super) fn new(options: &[TokenOptions]) -> Result<Self> {
        let tokens = options.iter().map(Token::new).collect::<Result<_>>()?;
        Ok(Self { tokens, local: Principal { name: "local".into(), scopes: [Scope::Admin].into() } })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    fn principal(&self, headers: &HeaderMap) -> Option<&Principal> {
        if self.tokens.is_empty() {
            return Some(&self.local);
        }
        let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let hash: [u8; 32] = Sha256::digest(token.trim()).into();
        // All tokens are compared, and all bytes of each, so that the time tells nothing about the stored hashes.
        self.tokens
            .iter()
            .fold(None, |found, token| if same(&token.hash, &hash) { Some(&token.principal) } else { found })
    }
}

impl Token {
    fn new(options: &TokenOptions) -> Result<Self> {
        let name = &options.name;
        let hash = options.hash.strip_prefix(HASH_PREFIX).and_then(unhex).ok_or_else(|| {
            Error::invalid_config(format!(
                "hash of token `{name}` is not `{HASH_PREFIX}` and 64 hex digits; `frazil token` makes one"
            ))
        })?;
        let scopes = options.scopes.iter().map(|scope| scope.parse()).collect::<Result<_>>();
        let scopes = scopes.map_err(|e: Error| e.context(format!("read the scopes of token `{name}`")))?;
        Ok(Self { hash, principal: Principal { name: name.as_str().into(), scopes } })
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    std::hint::black_box(a.iter().zip(b).fold(0, |differing, (a, b)| differing | (a ^ b))) == 0
}

/// Middleware: puts the [`Principal`] of a valid token into the request. It refuses nothing, since some routes are
/// open to all; [`require`] does.
pub(super) async fn authenticate(State(tokens): State<Tokens>, mut request: Request, next: Next) -> Response {
    if let Some(principal) = tokens.principal(request.headers()) {
        let principal = principal.clone();
        request.extensions_mut().insert(principal);
    }
    next.run(request).await
}

/// `routes`, for principals with `scope` only: 401 without a valid token, 403 where its scopes do not suffice.
pub fn require(scope: Scope, routes: Router) -> Router {
    require_with(scope, routes, Refusal::into_response)
}

/// As [`require`], for a face whose protocol has its own way to refuse: `say` makes the body.
pub fn require_with(scope: Scope, routes: Router, say: fn(Refusal) -> Response) -> Router {
    routes.route_layer(from_fn(move |request: Request, next: Next| async move {
        match request.extensions().get::<Principal>() {
            Some(principal) if principal.may(scope) => next.run(request).await,
            Some(principal) => say(forbidden(principal, scope)),
            None => ([(WWW_AUTHENTICATE, "Bearer")], say(unauthorized())).into_response(),
        }
    }))
}

/// `routes`, for principals with any of `scopes`. A refusal names all of them, so that a client may ask for them.
pub fn require_any(scopes: &'static [Scope], routes: Router) -> Router {
    let names = scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" ");
    routes.route_layer(from_fn(move |request: Request, next: Next| {
        let names = names.clone();
        async move {
            let (error, no) = match request.extensions().get::<Principal>() {
                Some(principal) if scopes.iter().any(|scope| principal.may(*scope)) => return next.run(request).await,
                Some(principal) => {
                    let message = format!("token `{}` has none of the scopes `{names}`", principal.name);
                    let no = Refusal::new(StatusCode::FORBIDDEN, "forbidden", message);
                    ("error=\"insufficient_scope\", ", no)
                }
                None => ("", unauthorized()),
            };
            ([(WWW_AUTHENTICATE, format!("Bearer {error}scope=\"{names}\""))], no).into_response()
        }
    }))
}

fn unauthorized() -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", "this needs `Authorization: Bearer` with a valid token")
}

fn forbidden(principal: &Principal, scope: Scope) -> Refusal {
    let message = format!("token `{}` lacks the scope `{}`", principal.name, scope.as_str());
    Refusal::new(StatusCode::FORBIDDEN, "forbidden", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn token(hash: &str, scopes: &[&str]) -> TokenOptions {
        let scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        TokenOptions { name: "probe".into(), hash: hash.into(), scopes }
    }

    fn headers(authorization: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, authorization.parse().unwrap())])
    }

    #[test]
    fn hash_is_that_of_sha256() {
        // The vector for "abc" of FIPS 180-4.
        assert_eq!(hash_token("abc"), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn only_the_token_itself_is_its_principal() {
        let tokens = Tokens::new(&[token(&hash_token("first"), &["read"]), token(&hash_token("other"), &[])]).unwrap();
        let name = |text| tokens.principal(&headers(text)).map(|principal| principal.scopes.len());
        assert_eq!(name("Bearer first"), Some(1));
        assert_eq!(name("bearer other"), Some(0));
        for wrong in ["Bearer firs", "Bearer", "Basic first", "first", &format!("Bearer {}", hash_token("first"))] {
            assert_eq!(name(wrong), None, "{wrong}");
        }
        assert_eq!(tokens.principal(&HeaderMap::new()), None);
    }

    #[test]
    fn scopes_include_lower_ones() {
        let may = |scope: &str, needed| {
            let tokens = Tokens::new(&[token(&hash_token("x"), &[scope])]).unwrap();
            tokens.principal(&headers("Bearer x")).unwrap().may(needed)
        };
        assert!(may("metrics", Scope::Metrics) && may("read", Scope::Metrics) && may("admin", Scope::Read));
        assert!(!may("metrics", Scope::Read) && !may("read", Scope::Admin) && may("write", Scope::Read));
        for (narrow, needed) in
            [("read:search", Scope::ReadSearch), ("read:sql", Scope::ReadSql), ("read:kafka", Scope::ReadKafka)]
        {
            assert!(may(narrow, needed) && may("read", needed) && may("admin", needed) && !may("metrics", needed));
            let included = Scope::ALL.iter().filter(|other| may(narrow, **other)).count();
            assert_eq!(included, 1, "`{narrow}` is nothing but itself");
        }
    }

    #[test]
    fn malformed_tokens_are_refused_by_name() {
        let good = hash_token("x");
        let plus = format!("sha256:+{}", "0".repeat(63));
        for (hash, scopes, hint) in [
            ("x", &["read"][..], "frazil token"),
            (&good[..good.len() - 1], &["read"], "64 hex digits"),
            (&plus, &["read"], "64 hex digits"),
            (&good, &["reed"], "scope `reed` is none of"),
        ] {
            let error = Tokens::new(&[token(hash, scopes)]).map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.chain().contains("`probe`") && error.chain().contains(hint), "{error:?}");
        }
    }
}
