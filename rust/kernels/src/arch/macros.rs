//! What all levels with vector instructions repeat.

/// The proof of a level, and the two places that must name the same features: where the CPU is asked for them, and the
/// function into which a task is inlined and in which it may use them.
macro_rules! proof {
    ($(#[$doc:meta])* $proof:ident, $run:ident<$task:ident>, $is_detected:ident: $($feature:tt)*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $proof(());

        impl $proof {
            /// The only way to a value: every feature is asked for, since a virtual machine may hide any of them.
            #[inline(always)]
            pub(super) fn detect() -> Option<Self> {
                ($(std::arch::$is_detected!($feature))&&*).then_some(Self(()))
            }
        }

        #[target_feature($(enable = $feature),*)]
        #[inline(never)] // one function of each task, however often it is needed
        fn $run<T: $task>(cpu: $proof, task: T) -> T::Output {
            task.run(cpu)
        }
    };
}

/// Methods of lanes that are one expression of intrinsics on registers.
macro_rules! registers {
    ($(fn $name:ident($self:ident $(, $argument:ident: $type:ty)*) -> $result:ty = $body:expr;)*) => {$(
        #[inline(always)]
        fn $name($self $(, $argument: $type)*) -> $result {
            // SAFETY: the CPU has the instructions, which `self` proves; only registers are touched.
            unsafe { $body }
        }
    )*};
}

/// Methods of lanes that are one expression of intrinsics on memory.
macro_rules! memory {
    ($(unsafe fn $name:ident($self:ident $(, $argument:ident: $type:ty)*) $(-> $result:ty)? = $body:expr;)*) => {$(
        #[inline(always)]
        unsafe fn $name($self $(, $argument: $type)*) $(-> $result)? {
            // SAFETY: the CPU has the instructions, which `self` proves; they read and write no more than the trait's
            // contract names, which the caller keeps.
            unsafe { $body }
        }
    )*};
}

pub(super) use {memory, proof, registers};
