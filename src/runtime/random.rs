//! Randomness: a fast generator per thread for spreading and jitter, the system's for identities.
#![allow(unsafe_code)] // One system call on a local array.

use std::cell::RefCell;

thread_local! {
    static GENERATOR: RefCell<fastrand::Rng> =
        RefCell::new(fastrand::Rng::with_seed(u64::from_ne_bytes(random_bytes::<8>())));
}

/// A number for jitter and spreading; not for secrets.
#[must_use]
pub fn random_u64() -> u64 {
    GENERATOR.with_borrow_mut(|generator| generator.u64(..))
}

/// Bytes of the operating system's generator: epochs, identities, nonces.
///
/// # Panics
/// When the system has none, which Linux rules out after boot.
#[must_use]
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0_u8; N];
    let mut filled = 0;
    while filled < N {
        let rest = &mut bytes[filled..];
        // SAFETY: the pointer and length describe `rest`, which outlives the call.
        let count = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(count) {
            Ok(count) => filled += count,
            Err(_) => {
                let error = std::io::Error::last_os_error();
                assert_eq!(
                    error.kind(),
                    std::io::ErrorKind::Interrupted,
                    "getrandom: {error}"
                );
            }
        }
    }
    bytes
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn draws_differ() {
        assert_ne!(random_bytes::<16>(), random_bytes::<16>());
        assert_ne!(random_u64(), random_u64());
    }
}
