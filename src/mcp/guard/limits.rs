//! How often each principal calls, and how many calls it has under way.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::mcp::Limits;
use crate::mcp::view::Refused;
use crate::runtime::clock::Clock;

const MINUTE: Duration = Duration::from_mins(1);
/// When to come again where too many calls are under way.
const BUSY_RETRY_MS: u64 = 500;

/// The calls of all principals. Their names are those of configured tokens, so there are few.
#[derive(Clone)]
pub(in crate::mcp) struct Usage {
    limits: Limits,
    clock: Clock,
    callers: Arc<Mutex<BTreeMap<Arc<str>, Calls>>>,
}

#[derive(Default)]
struct Calls {
    /// When those of the last minute came.
    times: VecDeque<Duration>,
    under_way: u32,
}

/// A call under way, until it is dropped.
pub(in crate::mcp) struct Turn {
    usage: Usage,
    principal: Arc<str>,
}

impl Usage {
    pub(in crate::mcp) fn new(limits: Limits, clock: Clock) -> Self {
        Self { limits, clock, callers: Arc::default() }
    }

    /// Begins a call.
    ///
    /// # Errors
    /// Where there are too many, and when to come again.
    pub(in crate::mcp) fn admit(&self, principal: &Arc<str>) -> Result<Turn, Refused> {
        let now = self.clock.elapsed();
        let mut callers = self.lock();
        let calls = callers.entry(Arc::clone(principal)).or_default();
        while calls.times.front().is_some_and(|at| now.saturating_sub(*at) >= MINUTE) {
            calls.times.pop_front();
        }
        if calls.under_way >= self.limits.calls_at_once {
            let text = format!("{} calls are under way, which is as many as may be", calls.under_way);
            return Err(Refused::new("too_many_at_once", text)
                .retry_after(BUSY_RETRY_MS)
                .next("wait for one of them to end, then ask again"));
        }
        if calls.times.len() >= self.limits.calls_per_minute as usize {
            let oldest = calls.times.front().copied().unwrap_or(now);
            let wait = (oldest + MINUTE).saturating_sub(now);
            let text = format!("{} calls within a minute, which is as many as may be", calls.times.len());
            return Err(Refused::new("too_many_calls", text)
                .retry_after(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX) + 1)
                .next("wait, and ask for more in one call: aggregate with SQL, raise the limit of rows"));
        }
        calls.times.push_back(now);
        calls.under_way += 1;
        Ok(Turn { usage: self.clone(), principal: Arc::clone(principal) })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Calls>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(calls) = self.usage.lock().get_mut(&self.principal) {
            calls.under_way -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn calls_are_counted_by_principal_at_once_and_by_the_minute() {
        let clock = Clock::simulated(1);
        let limits = Limits { calls_per_minute: 3, calls_at_once: 2, time: MINUTE };
        let usage = Usage::new(limits, clock.clone());
        let (me, you): (Arc<str>, Arc<str>) = ("me".into(), "you".into());
        let refused = |who: &Arc<str>| usage.admit(who).err().map(|refused| refused.code);
        let first = usage.admit(&me).unwrap();
        clock.sleep(MINUTE / 2).await;
        let second = usage.admit(&me).unwrap();
        assert_eq!(refused(&me), Some("too_many_at_once"));
        assert_eq!(refused(&you), None, "another's calls are not mine");
        drop((first, second));
        assert_eq!(refused(&me), None, "the third");
        let no = usage.admit(&me).err().unwrap();
        assert_eq!((no.code, &no.view()["retry_after_ms"]), ("too_many_calls", &serde_json::json!(30_001)));
        clock.sleep(MINUTE / 2).await;
        assert_eq!(refused(&me), None, "the first is a minute ago");
        assert_eq!(refused(&me), Some("too_many_calls"));
    }
}
