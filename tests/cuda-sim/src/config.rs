//! What the environment asks of the device. Read once, at the first call.

use std::env;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::OnceLock;

/// Settings from the `CUDA_SIM_*` variables.
pub struct Config {
    /// `CUDA_SIM_CC`: the compute capability.
    pub capability: (u32, u32),
    /// `CUDA_SIM_SMS`: multiprocessors; the model's own number without it.
    pub multiprocessors: Option<u32>,
    /// `CUDA_SIM_DEVICES`: how many devices there are. `CUDA_VISIBLE_DEVICES` hides some, as it does real ones.
    pub devices: i32,
    /// `CUDA_SIM_MEMORY`: bytes of device memory, with an optional suffix K, M, G.
    pub memory: usize,
    /// `CUDA_SIM_SEED`: draws the order of warps and blocks, and the perturbation.
    pub seed: u64,
    /// `CUDA_SIM_PERTURB=1`: approximate instructions err within their documented bound.
    pub perturb: bool,
    /// `CUDA_SIM_CHECKS=0` turns the checks of initialisation, races and barriers off.
    pub checks: bool,
    /// `CUDA_SIM_ABORT=1`: a fault ends the process, so that no test can pass over it.
    pub abort: bool,
    /// `CUDA_SIM_LEAKS=1`: what is still allocated when a context ends, and at exit, is reported.
    pub leaks: bool,
    /// `CUDA_SIM_TRACE=1`: every call goes to stderr.
    pub trace: bool,
    /// `CUDA_SIM_COUNTERS=file`: one JSON object a launch is appended to it.
    pub counters: Option<PathBuf>,
}

/// The settings of this process.
pub fn get() -> &'static Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    CONFIG.get_or_init(Config::from_environment)
}

impl Config {
    fn from_environment() -> Self {
        let text = |name: &str| {
            env::var(format!("CUDA_SIM_{name}"))
                .ok()
                .filter(|text| !text.is_empty())
        };
        let flag = |name: &str, default: bool| setting(name, text(name), default, on_or_off);
        Self {
            capability: setting("CC", text("CC"), (9, 0), capability),
            multiprocessors: setting("SMS", text("SMS"), None, |value| positive(value).map(Some)),
            devices: visible(
                setting("DEVICES", text("DEVICES"), 1, |value| {
                    value.parse().ok().filter(|count| (0..=16).contains(count))
                }),
                env::var("CUDA_VISIBLE_DEVICES").ok().as_deref(),
            ),
            memory: setting("MEMORY", text("MEMORY"), 16 << 30, bytes),
            seed: setting("SEED", text("SEED"), 0, |value| value.parse().ok()),
            perturb: flag("PERTURB", false),
            checks: flag("CHECKS", true),
            abort: flag("ABORT", false),
            leaks: flag("LEAKS", false),
            trace: flag("TRACE", false),
            counters: text("COUNTERS").map(PathBuf::from),
        }
    }
}

/// The value of a variable. One that cannot be read is not guessed at: the process ends.
fn setting<T>(
    name: &str,
    text: Option<String>,
    default: T,
    parse: impl Fn(&str) -> Option<T>,
) -> T {
    let Some(text) = text else { return default };
    parse(&text).unwrap_or_else(|| {
        eprintln!("cuda-sim: CUDA_SIM_{name}={text} is not a value that it can have");
        std::process::abort()
    })
}

/// How many devices of a list of ordinals there are: up to the first that does not exist. All are alike, so that it does
/// not matter which.
fn visible(devices: i32, list: Option<&str>) -> i32 {
    let Some(list) = list else { return devices };
    let exists = |ordinal: &&str| {
        ordinal
            .trim()
            .parse()
            .is_ok_and(|n| (0..devices).contains(&n))
    };
    list.split(',').take_while(exists).count() as i32
}

fn positive<T: FromStr + PartialOrd + From<u8>>(text: &str) -> Option<T> {
    text.parse().ok().filter(|value| *value >= T::from(1))
}

/// `8.0`, or `80` as compilers write it.
fn capability(text: &str) -> Option<(u32, u32)> {
    if let Some((major, minor)) = text.split_once('.') {
        return Some((positive(major)?, minor.parse().ok()?));
    }
    let number: u32 = positive(text)?;
    (number >= 10).then_some((number / 10, number % 10))
}

fn on_or_off(text: &str) -> Option<bool> {
    match text {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

fn bytes(text: &str) -> Option<usize> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'K' | b'k' => (&text[..text.len() - 1], 10),
        b'M' | b'm' => (&text[..text.len() - 1], 20),
        b'G' | b'g' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    positive::<usize>(digits)?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities() {
        assert_eq!(capability("8.0"), Some((8, 0)));
        assert_eq!(capability("120"), Some((12, 0)));
        assert_eq!(capability("9"), None);
        assert_eq!(capability("x.y"), None);
    }

    #[test]
    fn hidden_devices() {
        assert_eq!(visible(2, None), 2);
        assert_eq!(visible(2, Some("1")), 1);
        assert_eq!(visible(2, Some("1, 0")), 2);
        assert_eq!(visible(2, Some("0,2,1")), 1);
        assert_eq!(visible(2, Some("")), 0);
        assert_eq!(visible(2, Some("-1")), 0);
    }

    #[test]
    fn switches() {
        assert_eq!(
            ["1", "on", "0", "no"].map(on_or_off),
            [Some(true), Some(true), Some(false), Some(false)]
        );
        assert_eq!(on_or_off("2"), None);
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes("512"), Some(512));
        assert_eq!(bytes("2G"), Some(2 << 30));
        assert_eq!(bytes("G"), None);
        assert_eq!(bytes("0"), None);
    }
}
