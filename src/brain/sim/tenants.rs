//! Two tenants, one of whom floods.

use super::Workload;
use crate::BlockKey;
use crate::rng::Rng;

/// The tenant that asks at its own pace.
pub const QUIET: u32 = 1;
/// The one that asks for more than there is.
pub const FLOODING: u32 = 2;

/// Tokens of a tenant's system prompt.
const SYSTEM_TOKENS: u32 = 512;
const BLOCK_TOKENS: u32 = 64;

/// How much each asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TwoTenants {
    /// Requests a second of the quiet one.
    pub quiet_per_s: f64,
    /// Times that the other asks as often; 0 leaves the first alone.
    pub flood: f64,
    /// How long both ask, seconds.
    pub seconds: f64,
    /// Of lengths and times.
    pub seed: u64,
}

impl TwoTenants {
    /// An open loop: Poisson arrivals, prompts of a system prompt and of 1,500 tokens in the median
    /// (lognormal, sigma 0.8, at most 12,000), answers of 150 in the median (0.6, at most 1,000). What
    /// the quiet one asks for does not depend on the other.
    #[must_use]
    pub fn workload(&self) -> Workload {
        let mut workload = Workload::new(BLOCK_TOKENS);
        self.ask(&mut workload, QUIET, self.quiet_per_s);
        self.ask(&mut workload, FLOODING, self.quiet_per_s * self.flood);
        workload
    }

    fn ask(&self, workload: &mut Workload, tenant: u32, per_s: f64) {
        if per_s <= 0.0 {
            return;
        }
        let scope = u64::from(tenant);
        let mut rng = Rng::new(self.seed << 8 | scope);
        let mut at_ms = 0.0;
        for number in 1.. {
            at_ms -= libm::log(1.0 - rng.next_f64()) * 1e3 / per_s;
            if at_ms > self.seconds * 1e3 {
                return;
            }
            let own = lognormal(&mut rng, 1_500.0, 0.8).min(12_000.0) as u32;
            let output = lognormal(&mut rng, 150.0, 0.6).clamp(1.0, 1_000.0) as u32;
            let key = |head: u64, at: u32| {
                BlockKey(Rng::new(scope << 56 | head << 20 | u64::from(at)).next_u64())
            };
            let system = (0..SYSTEM_TOKENS / BLOCK_TOKENS).map(|at| key(0, at));
            let rest = (0..own / BLOCK_TOKENS).map(|at| key(number, at));
            workload.begin_session_of(tenant);
            workload.push(at_ms, SYSTEM_TOKENS + own.max(1), output, system.chain(rest));
        }
    }
}

/// By Box and Muller.
fn lognormal(rng: &mut Rng, median: f64, sigma: f64) -> f64 {
    let radius = libm::sqrt(-2.0 * libm::log(1.0 - rng.next_f64()));
    let normal = radius * libm::cos(std::f64::consts::TAU * rng.next_f64());
    median * libm::exp(sigma * normal)
}
