//! The listener's certificate: from files, and anew from files while running.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::error::{Error, Result};

/// Protocol names that are agreed on in the handshake, best first.
pub(super) const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";

/// Where certificate and key lie, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by those between it and the root.
    pub cert: PathBuf,
    /// Its private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

/// The acceptor that new connections get; clones share it.
#[derive(Clone)]
pub struct Tls {
    acceptor: watch::Sender<TlsAcceptor>,
}

impl Tls {
    /// # Errors
    /// As [`Tls::reload`].
    pub(super) fn new(files: &TlsFiles) -> Result<Self> {
        Ok(Self { acceptor: watch::Sender::new(load(files)?) })
    }

    /// Takes certificate and key from `files` for connections from now on. On an error the old ones stay.
    ///
    /// # Errors
    /// `InvalidConfig` where a file cannot be read, holds nothing of the kind, or the two do not belong together.
    pub fn reload(&self, files: &TlsFiles) -> Result<()> {
        self.acceptor.send_replace(load(files)?);
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.borrow().clone()
    }
}

fn load(files: &TlsFiles) -> Result<TlsAcceptor> {
    let unreadable = |what, path: &Path, e: pem::Error| {
        Error::invalid_config(format!("read the {what} from file `{}`", path.display())).with_source(e)
    };
    let chain = CertificateDer::pem_file_iter(&files.cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|e| unreadable("certificate", &files.cert, e))?;
    if chain.is_empty() {
        return Err(unreadable("certificate", &files.cert, pem::Error::NoItemsFound));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|e| unreadable("private key", &files.key, e))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|e| {
            let (cert, key) = (files.cert.display(), files.key.display());
            Error::invalid_config(format!("use certificate `{cert}` with private key `{key}`")).with_source(e)
        })?;
    config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn files_that_do_not_fit_are_refused_by_name() {
        let file = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name);
        for (cert, key, named) in [
            ("first.crt", "second.key", "second.key"),
            ("none.crt", "first.key", "none.crt"),
            ("first.key", "first.key", "certificate from file"),
            ("first.crt", "first.crt", "private key from file"),
        ] {
            let error = load(&TlsFiles { cert: file(cert), key: file(key) }).map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.to_string().contains(named), "{error:?}");
        }
    }
}
