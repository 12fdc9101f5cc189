//! With feature `cuda`: compiles kernels/*.cu to PTX, each file once for every dtype. Without it: nothing.

#[cfg(not(feature = "cuda"))]
fn main() {
    // Nothing to watch: not even the kernels, which a build without them does not look at.
    println!("cargo::rerun-if-changed=build.rs");
}

#[cfg(feature = "cuda")]
fn main() -> std::process::ExitCode {
    match cuda::build() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            // As an instruction to cargo, which shows it alone, without the trace of a panic.
            println!("cargo::error={}", format!("{error:#}").replace('\n', " "));
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    use anyhow::{Context, Result, bail};
    use cudaforge::{CudaToolkit, KernelBuilder, detect_compute_cap};
    use std::fmt::Write;
    use std::path::{Path, PathBuf};
    use std::{env, fs};

    /// As candle names them, and the macro that selects each.
    const DTYPES: [(&str, &str); 4] = [
        ("f32", "-DREPARAM_F32"),
        ("f64", "-DREPARAM_F64"),
        ("f16", "-DREPARAM_F16"),
        ("bf16", "-DREPARAM_BF16"),
    ];
    /// The oldest toolkit that the kernels are known to compile with, and whose compiler takes the parameters by reference
    /// that they ask for.
    const OLDEST: (u32, u32) = (12, 0);

    pub(super) fn build() -> Result<()> {
        let out = PathBuf::from(env::var("OUT_DIR")?);
        // cargo compares the times of all files in a folder that it is given.
        for path in ["build.rs", "kernels"] {
            println!("cargo::rerun-if-changed={path}");
        }
        for variable in ["CUDA_COMPUTE_CAP", "NVCC", "CUDA_HOME", "CUDA_PATH", "PATH"] {
            println!("cargo::rerun-if-env-changed={variable}");
        }
        let nvcc = compiler()?;
        // Another compiler at the same place is another compiler.
        println!("cargo::rerun-if-changed={}", nvcc.display());
        let arch = detect_compute_cap().context(
            "candle-reparam: for which GPU? Set CUDA_COMPUTE_CAP to its compute capability without the dot (80 for an A100, \
             90 for an H100), since nvidia-smi does not tell",
        )?;
        // Plain, without the suffix that would tie the PTX to one generation: newer devices compile it as well.
        let arch = arch.base().to_string();
        let sources = sources()?;
        for (dtype, define) in DTYPES {
            KernelBuilder::new()
                .source_files(sources.clone())
                .watch(headers()?)
                .compute_cap_arch(&arch)
                .out_dir(out.join(dtype))
                .include_path("kernels/include")
                .args(["-std=c++17", "-O3", define])
                .thread_percentage(1.0)
                .build_ptx()
                .with_context(|| format!("candle-reparam: compiling the kernels for {dtype}"))?;
        }
        fs::write(out.join("kernels.rs"), table(&sources, &out)?)?;
        Ok(())
    }

    /// `text(module, dtype)`, the PTX of each file.
    fn table(sources: &[PathBuf], out: &Path) -> Result<String> {
        let mut arms = String::new();
        for source in sources {
            let module = source.file_stem().context("a kernel without a name")?;
            let module = module.to_string_lossy();
            for (dtype, _) in DTYPES {
                let file = out.join(dtype).join(format!("{module}.ptx"));
                writeln!(
                    arms,
                    "({module:?}, {dtype:?}) => Some(include_str!({file:?})),"
                )?;
            }
        }
        let mut names = String::new();
        for source in sources {
            let module = source.file_stem().context("a kernel without a name")?;
            write!(names, "{:?}, ", module.to_string_lossy())?;
        }
        Ok(format!(
            "fn text(module: &str, dtype: &str) -> Option<&'static str> {{ match (module, dtype) {{ {arms} _ => None }} }} \
             const MODULES: [&str; {}] = [{names}];",
            sources.len()
        ))
    }

    /// nvcc, if it is there and new enough.
    fn compiler() -> Result<PathBuf> {
        let how = "install the CUDA toolkit (12.0 or later) and put its bin folder on PATH, or set CUDA_HOME or NVCC; on a \
                   machine without it, `. scripts/cuda-toolkit.sh` in candle-reparam's repository fetches one";
        let toolkit = CudaToolkit::detect().with_context(|| {
            format!("candle-reparam: feature `cuda` needs nvcc, which was not found: {how}")
        })?;
        let nvcc = toolkit.nvcc_path;
        let version = std::process::Command::new(&nvcc)
            .arg("--version")
            .output()
            .with_context(|| format!("candle-reparam: {} does not run: {how}", nvcc.display()))?;
        let text = String::from_utf8_lossy(&version.stdout).into_owned();
        let number = text.split("release ").nth(1).and_then(|rest| {
            let (major, rest) = rest.split_once('.')?;
            let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
            Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
        });
        match number {
            Some(version) if version >= OLDEST => Ok(nvcc),
            Some((major, minor)) => bail!(
                "candle-reparam: {} is of CUDA {major}.{minor}, which is too old: {how}",
                nvcc.display()
            ),
            None => bail!(
                "candle-reparam: {} does not tell its version: {how}",
                nvcc.display()
            ),
        }
    }

    fn files(folder: &str, extension: &str) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).with_context(|| format!("reading {folder}"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == extension) {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    fn sources() -> Result<Vec<PathBuf>> {
        files("kernels", "cu")
    }

    fn headers() -> Result<Vec<PathBuf>> {
        files("kernels/include", "cuh")
    }
}
