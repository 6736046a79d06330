//! The listener's life: bind, accept, serve each connection within limits, stop without cutting answers off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};
use crate::http::auth::{TokenOptions, Tokens, authenticate};
use crate::http::error::Refusal;
use crate::http::tls::{HTTP_2, Tls, TlsFiles};
use crate::runtime::clock::Clock;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::task::{TaskKind, spawn};

/// Connections at once; more wait in the kernel's queue. Each costs tens of kilobytes at most.
const CONNECTIONS_MAX: usize = 1024;
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;
/// Bytes of a request's body that an extractor takes.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// For the TLS handshake: several round trips of a slow network.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// For a request's head, and so also for silence between two requests.
const HEADER_LIMIT: Duration = Duration::from_secs(30);
/// Between pings on HTTP/2, and for their answer: finds peers that vanished.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// After a failed accept (no file descriptor left …), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where and for whom to listen.
#[derive(Clone)]
pub struct Options {
    /// Address and port; port 0 takes any.
    pub listen: SocketAddr,
    /// Certificate and key; without them it speaks plain HTTP/1.
    pub tls: Option<TlsFiles>,
    /// Who may ask; none: everybody who reaches the address.
    pub tokens: Vec<TokenOptions>,
    /// For answers under way when it stops; what is open afterwards is cut.
    pub stop_limit: Duration,
}

/// A bound listener with all routes.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<Tls>,
    connections: Connections,
    stop_limit: Duration,
}

/// What every connection needs.
#[derive(Clone)]
struct Connections {
    router: Router,
    clock: Clock,
    /// Asked for when the time for answers under way is over.
    cut: Shutdown,
}

impl Server {
    /// Checks the options and takes the address; requests are answered from [`Server::serve`] on.
    ///
    /// `routes` guard themselves with [`crate::http::auth::require`]; what is not guarded is open to all.
    ///
    /// # Errors
    /// `InvalidConfig` where the address is in use or cannot be had, where it can be reached from other machines and
    /// TLS or tokens are missing, or where a token, certificate or key cannot be used.
    pub async fn bind(options: &Options, routes: Router, clock: Clock) -> Result<Self> {
        let listen = options.listen;
        let tokens = Tokens::new(&options.tokens)?;
        if !listen.ip().to_canonical().is_loopback() && (options.tls.is_none() || tokens.is_empty()) {
            return Err(Error::invalid_config(format!(
                "listen on `{listen}`: other machines can reach this address, so it needs `server.tls` and at least one \
                 of `server.auth.tokens`; set both, or listen on 127.0.0.1"
            )));
        }
        let tls = options.tls.as_ref().map(Tls::new).transpose()?;
        let taken = |e: std::io::Error| {
            let hint = match e.kind() {
                std::io::ErrorKind::AddrInUse => "another process uses it; stop that one or change `server.listen`",
                _ => "it cannot be had; change `server.listen`",
            };
            Error::invalid_config(format!("listen on `{listen}`: {hint}")).with_source(e)
        };
        let listener = TcpListener::bind(listen).await.map_err(taken)?;
        let address = listener.local_addr().map_err(taken)?;
        let router = routes
            .fallback(|| async { Refusal::new(StatusCode::NOT_FOUND, "not_found", "nothing is here") })
            .method_not_allowed_fallback(|| async {
                Refusal::new(
                    StatusCode::METHOD_NOT_ALLOWED,
                    "method_not_allowed",
                    "this is asked for with another method",
                )
            })
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .layer(from_fn_with_state(tokens, authenticate));
        let connections = Connections { router, clock, cut: Shutdown::new() };
        Ok(Self { listener, address, tls, connections, stop_limit: options.stop_limit })
    }

    /// The address that it has, with the port that was taken.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// To change the certificate while it serves; `None` where it has none.
    #[must_use]
    pub fn tls(&self) -> Option<Tls> {
        self.tls.clone()
    }

    /// Serves until `shutdown`, then finishes the answers under way within the stop limit. Trouble with single
    /// connections ends these alone.
    ///
    /// # Errors
    /// None at present; it is a task's future.
    pub async fn serve(self, shutdown: Shutdown) -> Result<()> {
        let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let graceful = GracefulShutdown::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = shutdown.requested() => break,
                accepted = accept(&self.listener, &slots) => accepted,
            };
            match accepted {
                Ok((stream, slot)) => {
                    let (tls, connections) = (self.tls.as_ref().map(Tls::acceptor), self.connections.clone());
                    let watcher = graceful.watcher();
                    spawn(TaskKind::Server, "connection", async move {
                        connections.run(stream, tls, watcher).await;
                        drop(slot);
                        Ok(())
                    });
                }
                Err(e) => {
                    tracing::warn!(error = %e, "accepting a connection failed");
                    self.connections.clock.sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        let open = graceful.count();
        if self.connections.clock.timeout(self.stop_limit, graceful.shutdown()).await.is_none() {
            tracing::warn!(connections = open, limit = ?self.stop_limit, "connections did not end in time and are cut");
            self.connections.cut.request();
        }
        Ok(())
    }
}

/// The next connection, once there is a slot for it.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // Only a connection that is gone already refuses this; reading from it will say so.
    let _ = stream.set_nodelay(true);
    Ok((stream, slot))
}

impl Connections {
    /// One connection, from handshake to end.
    async fn run(self, stream: TcpStream, tls: Option<tokio_rustls::TlsAcceptor>, watcher: Watcher) {
        let cut = self.cut.clone();
        let talk = async move {
            let Some(tls) = tls else { return self.talk(stream, false, watcher).await };
            match self.clock.timeout(HANDSHAKE_LIMIT, tls.accept(stream)).await {
                Some(Ok(stream)) => {
                    let http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP_2);
                    self.talk(stream, http2, watcher).await;
                }
                Some(Err(e)) => tracing::debug!(error = %e, "tls handshake failed"),
                None => tracing::debug!("tls handshake took too long"),
            }
        };
        tokio::select! {
            () = cut.requested() => {}
            () = talk => {}
        }
    }

    /// Requests and answers. The handshake has settled the protocol's version: guessing it from the first bytes would
    /// wait for them without a limit.
    async fn talk<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S, http2: bool, watcher: Watcher) {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_INTERVAL)
            .max_concurrent_streams(STREAMS_MAX);
        let builder = if http2 { builder.http2_only() } else { builder.http1_only() };
        let service = TowerToHyperService::new(self.router);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        if let Err(e) = watcher.watch(connection).await {
            tracing::debug!(error = %e, "connection ended with an error");
        }
    }
}
