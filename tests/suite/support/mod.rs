//! What the rooms' tests share: double-precision oracles, a gradient checker, tests of fit, layouts and devices.

pub mod data;
pub mod devices;
pub mod estimators;
pub mod gradcheck;
#[cfg(feature = "cuda")]
pub mod launches;
pub mod layouts;
pub mod neighbours;
pub mod oracle;
pub mod philox;
pub mod relaxed;
pub mod statistics;

/// The message of a refused call: it must name the op and every part given.
#[track_caller]
pub fn refused<T>(result: candle_core::Result<T>, op: &str, parts: &[&str]) {
    let Err(error) = result else {
        panic!("{op} accepted it; the error was to name {parts:?}")
    };
    let message = error.to_string();
    // names such as `gumbel` must be found as words: `gumbel_softmax` does not name the op `gumbel`
    let named = message.match_indices(op).any(|(at, _)| {
        let before = message[..at].chars().next_back();
        let after = message[at + op.len()..].chars().next();
        let part_of_a_name = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !part_of_a_name(before) && !part_of_a_name(after)
    });
    assert!(named, "{op:?} is not named in: {message}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}
