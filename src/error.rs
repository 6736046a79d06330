//! The one error type: its kind says what the caller does next. Nothing here knows where errors come from.

use std::error::Error as StdError;
use std::fmt;

/// Result with Frazil's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller does next; [`policy`] maps each kind to its action and the operator's hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A dependency does not answer, or answers that it cannot now. Nothing is known to be wrong with the request.
    Unavailable,
    /// Somebody else changed the object first; reload and decide again.
    Conflict,
    /// This writer has been overtaken: its base is no longer the truth and its work is to be dropped.
    Fenced,
    /// One record cannot become a row.
    InvalidRecord,
    /// The configuration is wrong; only its owner can mend it.
    InvalidConfig,
    /// A caller of an interface asked for something that cannot be.
    InvalidRequest,
    /// Credentials are missing, wrong or too weak.
    Denied,
    /// Stored state contradicts itself or what the source says; a human decides.
    Corrupt,
    /// An assumption of the code does not hold.
    Bug,
}

/// What is done about an error of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Try the same again, later and later.
    RetryWithBackoff,
    /// Load the current state and decide anew.
    ReloadAndRetry,
    /// Stop the table (not the process) and say why.
    Stop,
    /// Hand the record to the table's `on_error` policy.
    DeadLetter,
    /// Do not start, or do not take the new configuration.
    RefuseToStart,
    /// Answer the caller with the error.
    Reject,
}

/// The policy table: what a kind leads to, and what the operator is told.
#[must_use]
pub fn policy(kind: ErrorKind) -> (Action, &'static str) {
    match kind {
        ErrorKind::Unavailable => (
            Action::RetryWithBackoff,
            "nothing to do if it passes; else check the address, the network and the service itself",
        ),
        ErrorKind::Conflict => {
            (Action::ReloadAndRetry, "nothing to do; many of these mean that several writers share the table")
        }
        ErrorKind::Fenced => (Action::ReloadAndRetry, "nothing to do; another replica has taken over"),
        ErrorKind::InvalidRecord => {
            (Action::DeadLetter, "look at it with `frazil dead-letters`, then mend the producer or the schema")
        }
        ErrorKind::InvalidConfig => {
            (Action::RefuseToStart, "mend the named setting; `frazil check` tries it without running")
        }
        ErrorKind::InvalidRequest => (Action::Reject, "mend the request"),
        ErrorKind::Denied => {
            (Action::RetryWithBackoff, "grant the permission or mend the credentials; it goes on by itself then")
        }
        ErrorKind::Corrupt => (Action::Stop, "read the message: it names both sides and the commands that choose one"),
        ErrorKind::Bug => (Action::Stop, "please report it with the message and the log before it"),
    }
}

/// An error: kind, what was tried on what, and the cause.
///
/// `Display` is lowercase, names the object with its kind in backticks, and never repeats the source.
/// Record values and secrets never go into it.
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    kind: ErrorKind,
    context: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` that says what was tried, on what, and what was found.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { inner: Box::new(Inner { kind, context: context.into(), source: None }) }
    }

    /// The same with the cause below it.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// The same error seen one level up: `context` in front, this one as its source.
    #[must_use]
    pub fn context(self, context: impl Into<String>) -> Self {
        let kind = self.inner.kind;
        Self::new(kind, context).with_source(self)
    }

    /// What the caller does next.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Context and all causes in one line, as people read it.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let line = error.to_string();
            if !text.ends_with(&line) {
                text.push_str(": ");
                text.push_str(&line);
            }
            cause = error.source();
        }
        text
    }
}

macro_rules! constructors {
    ($($name:ident => $kind:ident),* $(,)?) => {
        impl Error {
            $(#[doc = concat!("An error of kind [`ErrorKind::", stringify!($kind), "`].")]
            pub fn $name(context: impl Into<String>) -> Self {
                Self::new(ErrorKind::$kind, context)
            })*
        }
    };
}

constructors! {
    unavailable => Unavailable, conflict => Conflict, fenced => Fenced, invalid_record => InvalidRecord,
    invalid_config => InvalidConfig, invalid_request => InvalidRequest, denied => Denied, corrupt => Corrupt, bug => Bug,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.context)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.inner.kind, self.chain())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_ref().map(|source| source.as_ref() as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_shows_each_cause_once() {
        let error =
            Error::unavailable("load table `a.b`").with_source(std::io::Error::other("refused")).context("commit");
        assert_eq!(error.chain(), "commit: load table `a.b`: refused");
        assert_eq!(error.to_string(), "commit");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
}
