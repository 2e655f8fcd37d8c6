//! Where multiplying bfloat16 as they are pays. A flag says that the CPU can; that it gains was measured.

use std::sync::OnceLock;

/// Vendor and family of a CPU, as CPUID tells them. The model is no part of it: virtual machines make it up.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Kind {
    vendor: [u8; 12],
    family: u32,
}

/// How many times as fast fused attention of `[8, 1024, 1024, 64]` bfloat16 is as with float32 into which 16-bit floats
/// are converted, of the CPUs that have the instruction.
const MEASURED: [(Kind, f64); 2] = [
    // Zen 4. (Zen 3 is of the same family and does not have it.)
    (Kind { vendor: *b"AuthenticAMD", family: 0x19 }, 1.6),
    // Granite Rapids; Emerald Rapids 0.57.
    (Kind { vendor: *b"GenuineIntel", family: 0x06 }, 0.7),
];

/// Whether this CPU gains. It is asked once: in a virtual machine CPUID takes microseconds.
pub(super) fn gain() -> bool {
    #[cfg(test)]
    if let Some(forced) = FORCED.get() {
        return forced;
    }
    static GAIN: OnceLock<bool> = OnceLock::new();
    *GAIN.get_or_init(|| kind().is_some_and(gains))
}

/// A kind that was not measured does what every CPU can: convert.
fn gains(kind: Kind) -> bool {
    MEASURED.iter().any(|&(measured, gain)| measured == kind && gain > 1.0)
}

/// What this CPU is; `None` where no kernel has instructions of this sort.
fn kind() -> Option<Kind> {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::__cpuid;
        let (basic, version) = (__cpuid(0), __cpuid(1).eax);
        let mut vendor = [0; 12];
        for (part, register) in vendor.chunks_exact_mut(4).zip([basic.ebx, basic.edx, basic.ecx]) {
            part.copy_from_slice(&register.to_le_bytes());
        }
        let family = match version >> 8 & 0xf {
            0xf => 0xf + (version >> 20 & 0xff),
            family => family,
        };
        Some(Kind { vendor, family })
    }
    #[cfg(not(target_arch = "x86_64"))]
    None
}

#[cfg(test)]
thread_local! {
    /// What the calls of this thread do, wherever the CPU can: a test goes both ways.
    static FORCED: std::cell::Cell<Option<bool>> = const { std::cell::Cell::new(None) };
}

/// Calls of this thread gain by dots, or do not, while `work` runs.
#[cfg(test)]
pub(crate) fn force<T>(gain: bool, work: impl FnOnce() -> T) -> T {
    FORCED.set(Some(gain));
    let result = work();
    FORCED.set(None);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kinds_that_were_measured_to_gain_gain() {
        let gains = |vendor: &[u8; 12], family| gains(Kind { vendor: *vendor, family });
        assert!(gains(b"AuthenticAMD", 0x19));
        assert!(!gains(b"GenuineIntel", 6));
        assert!(!gains(b"AuthenticAMD", 0x1a), "not measured");
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_vendor_is_text() {
        let vendor = kind().unwrap().vendor;
        assert!(vendor.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' '), "{vendor:?}");
    }
}
