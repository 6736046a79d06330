//! A TCP proxy that strikes at what passes: where a request has a given text, that request or its answer is lost, held
//! or cut. Toxiproxy knows time and direction, not what is said, and so cannot meet one request for sure.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::wait::eventually;

/// What becomes of a request, or of its answer.
#[derive(Debug, Clone, Copy)]
pub enum Act {
    /// The server never sees the request; the connection ends.
    LoseRequest,
    /// The server acts upon the request; its answer is lost with the connection.
    LoseAnswer,
    /// The answer comes after this time.
    HoldAnswer(Duration),
    /// The connection is reset once this many bytes of the request have passed.
    CutAfter(usize),
}

#[derive(Debug)]
struct Rule {
    text: &'static str,
    act: Act,
    times: u32,
}

#[derive(Debug, Default)]
struct State {
    rule: Mutex<Option<Rule>>,
    struck: AtomicU32,
    refuses: AtomicBool,
}

/// The proxy, for as long as the tests run.
#[derive(Debug)]
pub struct Interceptor {
    /// Where to connect instead.
    pub port: u16,
    state: Arc<State>,
}

impl Interceptor {
    /// A proxy in front of a port on loopback.
    pub fn before(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                // Dropped, the connection ends.
                if !shared.refuses.load(Ordering::Relaxed)
                    && let Ok(server) = TcpStream::connect(("127.0.0.1", upstream))
                {
                    connect(client, server, &shared);
                }
            }
        });
        Self { port, state }
    }

    /// From now on acts so upon the next requests that have `text`, that many times.
    pub fn arm(&self, text: &'static str, act: Act, times: u32) {
        self.state.struck.store(0, Ordering::Relaxed);
        *self.state.rule.lock().unwrap() = Some(Rule { text, act, times });
    }

    /// Waits until it has acted upon that many requests since it was armed.
    #[track_caller]
    pub fn await_struck(&self, times: u32) {
        eventually("the requests have come by", Duration::from_mins(2), || {
            (self.state.struck.load(Ordering::Relaxed) >= times).then_some(())
        });
    }

    /// Refuses further connections, or takes them again.
    pub fn refuse(&self, refuses: bool) {
        self.state.refuses.store(refuses, Ordering::Relaxed);
    }
}

/// What the way up has told the way down.
#[derive(Debug, Default)]
struct Verdict(Mutex<Option<Act>>);

fn connect(client: TcpStream, server: TcpStream, state: &Arc<State>) {
    let verdict = Arc::new(Verdict::default());
    let (from_client, to_server) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (told, state) = (Arc::clone(&verdict), Arc::clone(state));
    std::thread::spawn(move || up(from_client, to_server, &state, &told));
    std::thread::spawn(move || down(client, server, &verdict));
}

fn up(mut client: TcpStream, mut server: TcpStream, state: &State, verdict: &Verdict) {
    let mut buffer = [0; 16 << 10];
    let mut cut_after = None;
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        let mut bytes = &buffer[..count];
        let act = struck(state, bytes);
        if let Some(act) = act {
            match act {
                Act::LoseRequest => break,
                Act::CutAfter(count) => cut_after = Some(count),
                Act::LoseAnswer | Act::HoldAnswer(_) => *verdict.0.lock().unwrap() = Some(act),
            }
        }
        if let Some(left) = &mut cut_after {
            bytes = &bytes[..bytes.len().min(*left)];
            *left -= bytes.len();
        }
        if server.write_all(bytes).is_err() || cut_after == Some(0) {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
    let _ = client.shutdown(Shutdown::Both);
}

/// The act, where the bytes have the text that is waited for.
fn struck(state: &State, bytes: &[u8]) -> Option<Act> {
    let mut rule = state.rule.lock().unwrap();
    let found = rule.as_mut().filter(|rule| bytes.windows(rule.text.len()).any(|at| at == rule.text.as_bytes()))?;
    found.times = found.times.checked_sub(1)?;
    state.struck.fetch_add(1, Ordering::Relaxed);
    Some(found.act)
}

fn down(mut client: TcpStream, mut server: TcpStream, verdict: &Verdict) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = server.read(&mut buffer) {
        let act = verdict.0.lock().unwrap().take();
        match act {
            Some(Act::LoseAnswer) => break,
            Some(Act::HoldAnswer(time)) => std::thread::sleep(time),
            _ => {}
        }
        if client.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}
