//! Where multiplying bfloat16 as they are pays. A flag says that the CPU can; that it gains was measured.

use std::sync::OnceLock;

/// CPUs by vendor and family, as CPUID says them (a virtual machine may hide the model, and does), and how many times as
/// fast fused attention of `[8, 1024, 1024, 64]` bfloat16 is with them as with float32 into which they are converted.
const MEASURED: [(&str, u32, f64); 2] = [
    ("AuthenticAMD", 0x19, 1.6),  // Zen 4: its Zen 3 has no such instruction
    ("GenuineIntel", 0x06, 0.57), // Emerald Rapids
];

/// Whether this CPU gains. One that was not measured does what every CPU can: convert.
pub(super) fn gain() -> bool {
    #[cfg(test)]
    if let Some(forced) = FORCED.get() {
        return forced;
    }
    static GAIN: OnceLock<bool> = OnceLock::new();
    *GAIN.get_or_init(|| {
        if let Ok(v) = std::env::var("DOTS") {
            return v == "1";
        }
        let (vendor, family) = cpu();
        MEASURED.iter().any(|&(of, families, gain)| of.as_bytes() == vendor && families == family && gain > 1.0)
    })
}

/// Vendor and family of this CPU. It is asked once: in a virtual machine the question takes tens of microseconds.
#[cfg(target_arch = "x86_64")]
fn cpu() -> ([u8; 12], u32) {
    use std::arch::x86_64::__cpuid;
    let (vendor, version) = (__cpuid(0), __cpuid(1).eax);
    let mut name = [0; 12];
    for (part, register) in name.chunks_exact_mut(4).zip([vendor.ebx, vendor.edx, vendor.ecx]) {
        part.copy_from_slice(&register.to_le_bytes());
    }
    let family = version >> 8 & 0xf;
    (name, if family == 0xf { family + (version >> 20 & 0xff) } else { family })
}

/// No other CPU has instructions of this kind that kernels use.
#[cfg(not(target_arch = "x86_64"))]
fn cpu() -> ([u8; 12], u32) {
    ([0; 12], 0)
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
