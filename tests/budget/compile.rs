//! Kernels to machine code, once for each dtype and architecture, and what ptxas says about it.

use std::collections::{BTreeMap, hash_map::DefaultHasher};
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};
use rayon::prelude::*;

use crate::sass::{self, Function};

pub const ARCHITECTURES: [u32; 3] = [80, 90, 120];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dtype {
    pub name: &'static str,
    define: &'static str,
    pub bytes: u32,
}

pub const F32: Dtype = Dtype {
    name: "f32",
    define: "REPARAM_F32",
    bytes: 4,
};
pub const DTYPES: [Dtype; 4] = [
    F32,
    Dtype {
        name: "f64",
        define: "REPARAM_F64",
        bytes: 8,
    },
    Dtype {
        name: "f16",
        define: "REPARAM_F16",
        bytes: 2,
    },
    Dtype {
        name: "bf16",
        define: "REPARAM_BF16",
        bytes: 2,
    },
];

/// What ptxas says about a kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub registers: u32,
    /// Bytes of static shared memory.
    pub shared: u32,
    pub stack: u32,
    pub spill_stores: u32,
    pub spill_loads: u32,
}

pub struct Kernel {
    pub function: Function,
    pub dtype: Dtype,
    pub arch: u32,
    pub resources: Resources,
}

/// The programs that the test needs, and the version of the compiler.
pub struct Tools {
    version: String,
}

impl Tools {
    pub fn find() -> Result<Self> {
        let mut version = String::new();
        for tool in ["nvcc", "ptxas", "nvdisasm"] {
            let output = Command::new(tool).arg("--version").output();
            let Some(output) = output.ok().filter(|o| o.status.success()) else {
                bail!(
                    "{tool} was not found, and without it nothing can be said about the kernels' budget: run \
                     `. scripts/cuda-toolkit.sh`, which puts a CUDA toolkit on the PATH of this shell"
                );
            };
            version += &String::from_utf8_lossy(&output.stdout);
        }
        Ok(Self { version })
    }

    /// The kernels of all jobs. What was compiled before is taken from `cache`.
    pub fn compile(&self, jobs: &[Job], cache: &Path) -> Result<Vec<Kernel>> {
        // Tests run side by side, and some of them want the same.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _turn = ONE_AT_A_TIME.lock();
        fs::create_dir_all(cache)?;
        // Two at a time: ptxas takes a lot of memory.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
        let kernels: Vec<Vec<Kernel>> = pool.install(|| {
            jobs.par_iter()
                .with_max_len(1)
                .map(|job| self.compile_one(job, cache))
                .collect::<Result<_>>()
        })?;
        Ok(kernels.into_iter().flatten().collect())
    }

    fn compile_one(&self, job: &Job, cache: &Path) -> Result<Vec<Kernel>> {
        let stem = job
            .source
            .file_stem()
            .and_then(|s| s.to_str())
            .context("a kernel file without a name")?;
        let name = format!(
            "{stem}-{}{}-sm_{}",
            job.dtype.name,
            job.defines.concat().to_lowercase(),
            job.arch
        );
        let flags = job.flags();
        let mut hasher = DefaultHasher::new();
        (&self.version, &flags).hash(&mut hasher);
        for file in job.inputs()? {
            (
                file.file_name(),
                fs::read(&file).with_context(|| file.display().to_string())?,
            )
                .hash(&mut hasher);
        }
        let kept = cache.join(format!("{name}.{:016x}", hasher.finish()));
        if !kept.is_file() {
            let cubin = cache.join(format!("{name}-{}.cubin", process::id()));
            let report = run(Command::new("nvcc")
                .args(&flags)
                .arg(&job.source)
                .arg("-o")
                .arg(&cubin))?
            .1;
            let listing = run(Command::new("nvdisasm").arg("-c").arg(&cubin))?.0;
            fs::remove_file(&cubin)?;
            for entry in fs::read_dir(cache)?.flatten() {
                // Results of sources that are no more.
                if entry.path().file_stem().is_some_and(|s| s == name.as_str()) {
                    fs::remove_file(entry.path())?;
                }
            }
            // Complete or not there at all.
            let part = cache.join(format!("{name}-{}.part", process::id()));
            fs::write(&part, format!("{report}{END_OF_REPORT}{listing}"))?;
            fs::rename(&part, &kept)?;
        }
        let text = fs::read_to_string(&kept)?;
        let (report, listing) = text
            .split_once(END_OF_REPORT)
            .with_context(|| format!("{} is damaged", kept.display()))?;
        let mut resources = parse_report(report)?;
        let functions = sass::parse(listing).with_context(|| name.clone())?;
        functions
            .into_iter()
            .map(|function| {
                let resources = resources.remove(&function.name);
                let resources = resources.with_context(|| {
                    format!("ptxas said nothing about {} in {name}", function.name)
                })?;
                Ok(Kernel {
                    function,
                    dtype: job.dtype,
                    arch: job.arch,
                    resources,
                })
            })
            .collect()
    }
}

const END_OF_REPORT: &str = "==== listing ====\n";

/// One run of the compiler.
pub struct Job {
    pub source: PathBuf,
    pub include: PathBuf,
    pub dtype: Dtype,
    pub arch: u32,
    pub defines: Vec<&'static str>,
}

impl Job {
    fn flags(&self) -> Vec<String> {
        let mut flags = vec![
            "-cubin".to_owned(),
            format!("-arch=sm_{}", self.arch),
            format!("-D{}", self.dtype.define),
        ];
        flags.extend(self.defines.iter().map(|d| format!("-D{d}")));
        flags.extend(["-std=c++17", "-O3", "-Xptxas", "-v"].map(str::to_owned));
        flags.push(format!("-I{}", self.include.display()));
        flags
    }

    fn inputs(&self) -> Result<Vec<PathBuf>> {
        let mut files = vec![self.source.clone()];
        files.extend(files_of(&self.include, "cuh")?);
        Ok(files)
    }
}

/// The files of a folder with an extension, in order of their names.
pub fn files_of(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files: Vec<PathBuf> = entries.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    files.retain(|f| f.extension().is_some_and(|e| e == extension));
    files.sort();
    Ok(files)
}

fn run(command: &mut Command) -> Result<(String, String)> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{command:?} failed:\n{errors}");
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), errors))
}

/// ptxas's report (`-v`) by kernel.
fn parse_report(report: &str) -> Result<BTreeMap<String, Resources>> {
    let mut kernels: BTreeMap<String, Resources> = BTreeMap::new();
    let (mut kernel, mut about) = (String::new(), String::new());
    for line in report.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            kernel = rest.split('\'').next().unwrap_or("").to_owned();
            kernels.entry(kernel.clone()).or_default();
        } else if let Some(rest) = line.split("Function properties for ").nth(1) {
            about = rest.trim().to_owned();
        } else if line.contains("bytes stack frame") {
            // Also of functions that were not inlined: their frames count for the kernel that they were compiled with.
            let known = kernels
                .get_mut(&about)
                .map(|_| about.clone())
                .unwrap_or_else(|| kernel.clone());
            let of = kernels
                .get_mut(&known)
                .with_context(|| format!("a stack frame of no kernel: {line}"))?;
            of.stack += number_before(line, " bytes stack frame")?;
            of.spill_stores += number_before(line, " bytes spill stores")?;
            of.spill_loads += number_before(line, " bytes spill loads")?;
        } else if line.contains(" registers") && line.contains("Used ") {
            let of = kernels
                .get_mut(&kernel)
                .with_context(|| format!("registers of no kernel: {line}"))?;
            of.registers = number_before(line, " registers")?;
            of.shared = if line.contains(" bytes smem") {
                number_before(line, " bytes smem")?
            } else {
                0
            };
        }
    }
    ensure!(
        kernels.values().all(|k| k.registers > 0),
        "ptxas reported no registers for a kernel:\n{report}"
    );
    Ok(kernels)
}

fn number_before(line: &str, unit: &str) -> Result<u32> {
    let before = line.split(unit).next().unwrap_or("");
    let digits = before
        .rsplit(|c: char| !c.is_ascii_digit())
        .next()
        .unwrap_or("");
    digits
        .parse()
        .with_context(|| format!("no number before `{unit}` in: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_ptxas() {
        let report = "ptxas info    : 0 bytes gmem\n\
            ptxas info    : Compiling entry function 'a_f32' for 'sm_90'\n\
            ptxas info    : Function properties for a_f32\n    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
            ptxas info    : Used 62 registers, used 1 barriers, 32 bytes smem, 400 bytes cmem[0]\n\
            ptxas info    : Compiling entry function 'b_f32' for 'sm_90'\n\
            ptxas info    : Function properties for b_f32\n    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads\n\
            ptxas info    : Used 16 registers, used 0 barriers, 16 bytes cumulative stack size\n\
            ptxas info    : Compile time = 7.195 ms\n";
        let kernels = parse_report(report).unwrap();
        let a = Resources {
            registers: 62,
            shared: 32,
            ..Resources::default()
        };
        let b = Resources {
            registers: 16,
            shared: 0,
            stack: 16,
            spill_stores: 8,
            spill_loads: 12,
        };
        assert_eq!(
            kernels.into_iter().collect::<Vec<_>>(),
            [("a_f32".to_owned(), a), ("b_f32".to_owned(), b)]
        );
    }

    #[test]
    fn reports_that_are_cut_short() {
        assert!(
            parse_report("ptxas info    : Compiling entry function 'a_f32' for 'sm_90'\n").is_err()
        );
        assert!(
            parse_report("    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n")
                .is_err()
        );
    }
}
