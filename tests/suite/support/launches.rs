//! Launches as the simulated device counts them. It counts a whole process, so that a test which asks runs once more in one of
//! its own. Elsewhere than on that device, which `REPARAM_SIMULATED` names, there is nothing to ask.

use std::path::PathBuf;
use std::process::Command;

use candle_core::Device;

use super::devices::cuda;

const CHILD: &str = "REPARAM_COUNTED";

/// Runs `f` in a process of its own and gives back what the device counted there, a JSON object a line. None in that process,
/// and where the device is not the simulated one.
pub fn counted(test: &str, f: impl FnOnce(&Device, Launches)) -> Option<String> {
    counted_with(test, &[], f)
}

/// The same with settings of the simulated device.
pub fn counted_with(
    test: &str,
    settings: &[(&str, &str)],
    f: impl FnOnce(&Device, Launches),
) -> Option<String> {
    if std::env::var_os(CHILD).is_some() {
        let file = std::env::var_os("CUDA_SIM_COUNTERS").expect("set by the parent");
        let launches = Launches {
            file: file.into(),
            seen: 0,
        };
        f(&cuda().expect("a device"), launches);
        return None;
    }
    std::env::var_os("REPARAM_SIMULATED")?;
    let name = format!("reparam-{}-{}", test.replace("::", "-"), std::process::id());
    let file = std::env::temp_dir().join(name);
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(CHILD, "1")
        .env("CUDA_SIM_COUNTERS", &file)
        .envs(settings.iter().copied())
        .status()
        .unwrap();
    let counters = std::fs::read_to_string(&file);
    std::fs::remove_file(&file).ok();
    assert!(status.success(), "{test} in a process of its own");
    Some(counters.unwrap())
}

/// What was launched in this process.
pub struct Launches {
    file: PathBuf,
    seen: usize,
}

impl Launches {
    /// The kernels that were launched since the last call, in order.
    pub fn since(&mut self) -> Vec<String> {
        let all = std::fs::read_to_string(&self.file).unwrap_or_default();
        let new = kernels(&all[self.seen..]).map(|(name, _)| name.to_string());
        let new = new.collect();
        self.seen = all.len();
        new
    }
}

/// The kernel of each launch, and its line.
pub fn kernels(counters: &str) -> impl Iterator<Item = (&str, &str)> {
    let launches = counters.lines().filter(|l| l.starts_with("{\"kernel\""));
    launches.map(|l| (l.split('"').nth(3).expect("a name"), l))
}

/// A number of a launch's line.
pub fn number(line: &str, name: &str) -> f64 {
    let rest = line.split(&format!("\"{name}\":")).nth(1).expect(name);
    let end = rest.find([',', '}']).expect("a number ends");
    rest[..end].parse().expect("a number")
}

#[test]
fn counters_are_read_as_they_are_written() {
    let line = r#"{"kernel":"a_f32","grid":[1,1,1],"counters":{"global_load_sectors":16,"global_store_sectors":2}}"#;
    let counters = format!("{line}\n{{\"problem\":\"x\"}}\n{line}");
    let found: Vec<_> = kernels(&counters).collect();
    assert_eq!(found, [("a_f32", line); 2]);
    assert_eq!(number(line, "global_load_sectors"), 16.0);
    assert_eq!(number(line, "global_store_sectors"), 2.0);
}
