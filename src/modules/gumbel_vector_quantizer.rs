//! The quantizer of wav2vec 2.0.

use super::as_rows;
use crate::distributions::{likeliest, likeliest_one_hot};
use crate::schedules::{Exponential, Schedule};
use crate::{
    Key, KeySource, Rng, Temperature, check, gumbel_softmax_st, normal, tempered_softmax, uniform,
};
use candle_core::{D, DType, Device, Result, Tensor, bail};
use candle_nn::{Init, Linear, Module, ModuleT, VarBuilder};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a [`GumbelVectorQuantizer`] is made of.
///
/// ```
/// use candle_reparam::modules::QuantizerConfig;
/// let config = QuantizerConfig { combine_groups: true, ..QuantizerConfig::wav2vec2(512)? };
/// assert_eq!((config.groups, config.codes, config.codevector_dim), (2, 320, 256));
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantizerConfig {
    /// The last dim of the input.
    pub input_dim: usize,
    /// How many codes are chosen for each input row: fairseq's `groups`, Hugging Face's `num_codevector_groups`.
    pub groups: usize,
    /// From how many each is chosen: `num_vars`, `num_codevectors_per_group`.
    pub codes: usize,
    /// The last dim of the output, of which each group gives an equal part: `vq_dim`, `codevector_dim`.
    pub codevector_dim: usize,
    /// Whether the groups share one codebook.
    pub combine_groups: bool,
    /// The temperature in training, by step.
    pub temperature: Exponential,
}

impl QuantizerConfig {
    /// wav2vec 2.0 BASE: 2 groups of 320 codes, vectors of 256, the temperature from 2 by a factor of 0.999995 a step to
    /// 0.5.
    ///
    /// ```
    /// use candle_reparam::modules::QuantizerConfig;
    /// assert_eq!(QuantizerConfig::wav2vec2(512)?.input_dim, 512);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn wav2vec2(input_dim: usize) -> Result<Self> {
        Ok(Self {
            input_dim,
            groups: 2,
            codes: 320,
            codevector_dim: 256,
            combine_groups: false,
            temperature: Exponential::new(2.0, 0.999_995, 0.5)?,
        })
    }

    fn check(&self) -> Result<()> {
        for (what, size) in [
            ("input_dim", self.input_dim),
            ("groups", self.groups),
            ("codes", self.codes),
            ("codevector_dim", self.codevector_dim),
        ] {
            if size == 0 {
                bail!("{NAME}: {what} is 0, expected at least 1")
            }
        }
        if !self.codevector_dim.is_multiple_of(self.groups) {
            bail!(
                "{NAME}: codevector_dim is {}, expected a multiple of groups, which is {}",
                self.codevector_dim,
                self.groups
            )
        }
        Ok(())
    }

    fn books(&self) -> usize {
        if self.combine_groups { 1 } else { self.groups }
    }

    fn book_shape(&self) -> (usize, usize, usize) {
        let width = self.codevector_dim / self.groups;
        (1, self.books() * self.codes, width)
    }
}

const NAME: &str = "GumbelVectorQuantizer";

/// The vector quantizer of wav2vec 2.0: for every group a linear layer chooses one of the codebook's vectors, in
/// training by straight-through Gumbel-softmax, in evaluation the likeliest; the groups' vectors are concatenated.
///
/// * **Weights**: `codevectors` `(1, groups codes, codevector_dim / groups)`, `weight_proj.weight` and
///   `weight_proj.bias`, as in Hugging Face's `Wav2Vec2ForPreTraining` under the prefix `quantizer`; fairseq calls the
///   first one `vars`. Fresh weights are those of fairseq: codebook uniform on (0, 1), projection normal with bias 0.
///   Candle cannot repeat them on the CPU; [`initial_weights`](Self::initial_weights) can.
/// * **Shapes**: input `(.., input_dim)`, vectors `(.., codevector_dim)`, indices `(.., groups)`.
/// * **Gradient**: in training to the input, the projection and the codebook; in evaluation to the codebook alone, as an
///   index has none. The diversity loss reaches input and projection in both.
/// * **Source**: Baevski, Zhou, Mohamed, Auli, arXiv 2006.11477; Baevski, Schneider, Auli, arXiv 1910.05453.
/// * **PyTorch**: fairseq's `GumbelVectorQuantizer`, `transformers`' `Wav2Vec2GumbelVectorQuantizer`.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::{VarBuilder, VarMap};
/// use candle_reparam::Rng;
/// use candle_reparam::modules::{GumbelVectorQuantizer, QuantizerConfig};
/// let (vars, rng) = (VarMap::new(), Rng::new(42));
/// let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
/// let config = QuantizerConfig { codes: 20, codevector_dim: 16, ..QuantizerConfig::wav2vec2(32)? };
/// let quantizer = GumbelVectorQuantizer::new(config, vb.pp("quantizer"), rng.clone())?;
/// let features = Tensor::ones((4, 50, 32), DType::F32, &Device::Cpu)?;
/// for step in 0..3 {
///     quantizer.set_step(step);
///     let quantized = quantizer.train(&features, rng.next_key())?;
///     let loss = (quantized.vectors().sqr()?.mean_all()? + quantized.diversity_loss(None)?)?;
///     let grads = loss.backward()?;
///     assert!(vars.all_vars().iter().all(|var| grads.get(var).is_some()));
/// }
/// assert_eq!(quantizer.eval(&features)?.indices().dims(), [4, 50, 2]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct GumbelVectorQuantizer {
    config: QuantizerConfig,
    weight_proj: Linear,
    codevectors: Tensor,
    rng: Rng,
    /// Shared by clones, as the weights are.
    step: Arc<AtomicU64>,
}

impl GumbelVectorQuantizer {
    /// From the configuration, the weights, and the source of keys for `forward_t`.
    ///
    /// Errors: a size of 0; a `codevector_dim` that the groups cannot share; weights that are missing or of another
    /// shape.
    ///
    /// ```
    /// use candle_core::{DType, Device};
    /// use candle_nn::VarBuilder;
    /// use candle_reparam::Rng;
    /// use candle_reparam::modules::{GumbelVectorQuantizer, QuantizerConfig};
    /// let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
    /// let config = QuantizerConfig { groups: 3, ..QuantizerConfig::wav2vec2(512)? };
    /// assert!(GumbelVectorQuantizer::new(config, vb, Rng::new(42)).is_err()); // 256 / 3
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn new(config: QuantizerConfig, vb: VarBuilder, rng: Rng) -> Result<Self> {
        config.check()?;
        let logits = config.groups * config.codes;
        let codebook = Init::Uniform { lo: 0.0, up: 1.0 };
        let weights = Init::Randn {
            mean: 0.0,
            stdev: 1.0,
        };
        let projection = vb.pp("weight_proj");
        let weight = projection.get_with_hints((logits, config.input_dim), "weight", weights)?;
        let bias = projection.get_with_hints(logits, "bias", Init::Const(0.0))?;
        Ok(Self {
            codevectors: vb.get_with_hints(config.book_shape(), "codevectors", codebook)?,
            weight_proj: Linear::new(weight, Some(bias)),
            config,
            rng,
            step: Arc::default(),
        })
    }

    /// Fresh weights from a key, by their names without a prefix: for `VarMap::set_one`, or `VarBuilder::from_tensors`.
    ///
    /// ```
    /// use candle_core::{DType, Device};
    /// use candle_nn::VarBuilder;
    /// use candle_reparam::{Key, Rng};
    /// use candle_reparam::modules::{GumbelVectorQuantizer, QuantizerConfig};
    /// let config = QuantizerConfig::wav2vec2(512)?;
    /// let (dtype, device) = (DType::F32, Device::Cpu);
    /// let weights = GumbelVectorQuantizer::initial_weights(&config, dtype, &device, Key::new(42, 0))?;
    /// assert_eq!(weights["codevectors"].dims(), [1, 640, 128]);
    /// let vb = VarBuilder::from_tensors(weights, dtype, &device);
    /// GumbelVectorQuantizer::new(config, vb, Rng::new(42))?;
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn initial_weights(
        config: &QuantizerConfig,
        dtype: DType,
        device: &Device,
        key: Key,
    ) -> Result<HashMap<String, Tensor>> {
        config.check()?;
        let logits = config.groups * config.codes;
        let codevectors = uniform(config.book_shape(), dtype, device, key.fold_in(0))?;
        let weight = normal((logits, config.input_dim), dtype, device, key.fold_in(1))?;
        let bias = Tensor::zeros(logits, dtype, device)?;
        Ok(HashMap::from([
            ("codevectors".to_string(), codevectors),
            ("weight_proj.weight".to_string(), weight),
            ("weight_proj.bias".to_string(), bias),
        ]))
    }

    /// Sets the step that the temperature is at: fairseq's `set_num_updates`.
    ///
    /// ```
    /// # use candle_core::{DType, Device};
    /// # use candle_nn::VarBuilder;
    /// # use candle_reparam::{Rng, modules::{GumbelVectorQuantizer, QuantizerConfig}};
    /// # let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
    /// let quantizer = GumbelVectorQuantizer::new(QuantizerConfig::wav2vec2(512)?, vb, Rng::new(42))?;
    /// assert_eq!(quantizer.temperature(), 2.0);
    /// quantizer.set_step(1_000_000);
    /// assert_eq!(quantizer.temperature(), 0.5);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn set_step(&self, step: u64) {
        self.step.store(step, Ordering::Relaxed);
    }

    /// The temperature at the current step.
    ///
    /// ```
    /// # use candle_core::{DType, Device};
    /// # use candle_nn::VarBuilder;
    /// # use candle_reparam::{Rng, modules::{GumbelVectorQuantizer, QuantizerConfig}};
    /// # let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
    /// let quantizer = GumbelVectorQuantizer::new(QuantizerConfig::wav2vec2(512)?, vb, Rng::new(42))?;
    /// quantizer.set_step(1);
    /// assert_eq!(quantizer.temperature(), 2.0 * 0.999_995);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    #[must_use]
    pub fn temperature(&self) -> f64 {
        let step = self.step.load(Ordering::Relaxed);
        self.config.temperature.value(step)
    }

    /// Codes drawn under a key at the current temperature, differentiable straight through.
    ///
    /// Errors: an input of another last dim, dtype or device; a key whose stream is not below 2^63.
    ///
    /// ```
    /// # use candle_core::{DType, Device, Tensor};
    /// # use candle_nn::VarBuilder;
    /// # use candle_reparam::{Key, Rng, modules::{GumbelVectorQuantizer, QuantizerConfig}};
    /// # let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
    /// let quantizer = GumbelVectorQuantizer::new(QuantizerConfig::wav2vec2(512)?, vb, Rng::new(42))?;
    /// let features = Tensor::zeros((2, 49, 512), DType::F32, &Device::Cpu)?;
    /// let quantized = quantizer.train(&features, Key::new(42, 0))?;
    /// assert_eq!(quantized.vectors().dims(), [2, 49, 256]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn train(&self, xs: &Tensor, key: impl Into<KeySource>) -> Result<Quantized> {
        self.train_at(xs, self.temperature(), key)
    }

    /// [`train`](Self::train) at a temperature of the caller's, which may be a tensor that learns.
    ///
    /// ```
    /// # use candle_core::{DType, Device, Tensor};
    /// # use candle_nn::VarBuilder;
    /// # use candle_reparam::{Key, Rng, modules::{GumbelVectorQuantizer, QuantizerConfig}};
    /// # let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
    /// let quantizer = GumbelVectorQuantizer::new(QuantizerConfig::wav2vec2(512)?, vb, Rng::new(42))?;
    /// let features = Tensor::zeros((2, 49, 512), DType::F32, &Device::Cpu)?;
    /// assert!(quantizer.train_at(&features, 0.1, Key::new(42, 0)).is_ok());
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn train_at(
        &self,
        xs: &Tensor,
        tau: impl Into<Temperature>,
        key: impl Into<KeySource>,
    ) -> Result<Quantized> {
        let (logits, leading) = self.logits(xs)?;
        let (rows, groups, codes) = logits.dims3()?;
        let one_hot = gumbel_softmax_st(&logits, tau, D::Minus1, key)?;
        let indices = likeliest(&one_hot)?.squeeze(D::Minus1)?;
        let width = self.config.codevector_dim / groups;
        let vectors = if self.config.combine_groups {
            let chosen = one_hot.reshape((rows * groups, codes))?;
            chosen.matmul(&self.codevectors.squeeze(0)?)?
        } else {
            let books = self.codevectors.reshape((groups, codes, width))?;
            let chosen = one_hot.transpose(0, 1)?.contiguous()?.matmul(&books)?;
            chosen.transpose(0, 1)?.contiguous()?
        };
        self.quantized(logits, vectors, indices, leading)
    }

    /// The likeliest codes: the same ones for the same input, whatever the temperature.
    ///
    /// Errors: an input of another last dim, dtype or device.
    ///
    /// ```
    /// # use candle_core::{DType, Device, Tensor};
    /// # use candle_nn::VarBuilder;
    /// # use candle_reparam::{Rng, modules::{GumbelVectorQuantizer, QuantizerConfig}};
    /// # let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
    /// let quantizer = GumbelVectorQuantizer::new(QuantizerConfig::wav2vec2(512)?, vb, Rng::new(42))?;
    /// let features = Tensor::zeros((2, 49, 512), DType::F32, &Device::Cpu)?;
    /// assert_eq!(quantizer.eval(&features)?.vectors().dims(), [2, 49, 256]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn eval(&self, xs: &Tensor) -> Result<Quantized> {
        let (logits, leading) = self.logits(xs)?;
        let (rows, groups, codes) = logits.dims3()?;
        let indices = likeliest(&logits)?.squeeze(D::Minus1)?;
        let flat = if self.config.combine_groups {
            indices.clone()
        } else {
            let starts: Vec<u32> = (0..groups).map(|g| (g * codes) as u32).collect();
            indices.broadcast_add(&Tensor::new(starts, indices.device())?)?
        };
        let flat = flat.reshape(rows * groups)?;
        let vectors = self.codevectors.squeeze(0)?.index_select(&flat, 0)?;
        self.quantized(logits, vectors, indices, leading)
    }

    /// Logits (N, groups, codes), and the leading dims of the input.
    fn logits(&self, xs: &Tensor) -> Result<(Tensor, Vec<usize>)> {
        check::placed_alike(
            NAME,
            ("the input", xs),
            ("weight_proj.weight", self.weight_proj.weight()),
        )?;
        let (rows, leading) = as_rows(NAME, xs, self.config.input_dim)?;
        let logits = self.weight_proj.forward(&rows)?;
        let shape = (rows.dim(0)?, self.config.groups, self.config.codes);
        Ok((logits.reshape(shape)?, leading))
    }

    fn quantized(
        &self,
        logits: Tensor,
        vectors: Tensor,
        indices: Tensor,
        leading: Vec<usize>,
    ) -> Result<Quantized> {
        let dims = |last: usize| [&leading[..], &[last]].concat();
        Ok(Quantized {
            vectors: vectors.reshape(dims(self.config.codevector_dim))?,
            indices: indices.reshape(dims(self.config.groups))?,
            logits,
            leading,
        })
    }
}

impl ModuleT for GumbelVectorQuantizer {
    /// In training the vectors of codes drawn under the next key, else those of the likeliest.
    fn forward_t(&self, xs: &Tensor, train: bool) -> Result<Tensor> {
        if train {
            Ok(self.train(xs, self.rng.next_key())?.vectors)
        } else {
            Ok(self.eval(xs)?.vectors)
        }
    }
}

/// What a [`GumbelVectorQuantizer`] makes of an input.
#[derive(Clone, Debug)]
pub struct Quantized {
    vectors: Tensor,
    indices: Tensor,
    logits: Tensor,
    leading: Vec<usize>,
}

impl Quantized {
    /// The quantized vectors, `(.., codevector_dim)`.
    ///
    /// ```
    /// # use candle_core::{DType, Device, Tensor};
    /// # use candle_nn::VarBuilder;
    /// # use candle_reparam::{Rng, modules::{GumbelVectorQuantizer, QuantizerConfig}};
    /// # let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
    /// # let quantizer = GumbelVectorQuantizer::new(QuantizerConfig::wav2vec2(512)?, vb, Rng::new(42))?;
    /// let quantized = quantizer.eval(&Tensor::zeros((2, 49, 512), DType::F32, &Device::Cpu)?)?;
    /// assert_eq!(quantized.vectors().dims(), [2, 49, 256]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    #[must_use]
    pub fn vectors(&self) -> &Tensor {
        &self.vectors
    }

    /// The codes, u32 `(.., groups)`, each in its group's codebook: fairseq's `targets`.
    ///
    /// ```
    /// # use candle_core::{DType, Device, Tensor};
    /// # use candle_nn::VarBuilder;
    /// # use candle_reparam::{Rng, modules::{GumbelVectorQuantizer, QuantizerConfig}};
    /// # let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
    /// # let quantizer = GumbelVectorQuantizer::new(QuantizerConfig::wav2vec2(512)?, vb, Rng::new(42))?;
    /// let quantized = quantizer.eval(&Tensor::zeros((2, 49, 512), DType::F32, &Device::Cpu)?)?;
    /// assert_eq!(quantized.indices().dims(), [2, 49, 2]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    #[must_use]
    pub fn indices(&self) -> &Tensor {
        &self.indices
    }

    /// How many codes are in use: the exponential of the entropy of the likeliest codes' frequencies, summed over the
    /// groups; f32, without gradient. From `groups` (one code each) to `groups codes`.
    ///
    /// A `mask` (u8, of the input's leading dims) counts the rows where it is not 0; where that is none, the result is NaN.
    /// Errors: a mask of another shape or dtype.
    ///
    /// ```
    /// # use candle_core::{DType, Device, Tensor};
    /// # use candle_nn::VarBuilder;
    /// # use candle_reparam::{Rng, modules::{GumbelVectorQuantizer, QuantizerConfig}};
    /// # let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
    /// # let quantizer = GumbelVectorQuantizer::new(QuantizerConfig::wav2vec2(512)?, vb, Rng::new(42))?;
    /// let quantized = quantizer.eval(&Tensor::zeros((2, 49, 512), DType::F32, &Device::Cpu)?)?;
    /// let in_use = quantized.code_perplexity(None)?.to_scalar::<f32>()?;
    /// assert!((in_use - 2.0).abs() < 1e-4); // weights of 0: the first code of each group
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn code_perplexity(&self, mask: Option<&Tensor>) -> Result<Tensor> {
        let one_hot = likeliest_one_hot(&self.logits)?.to_dtype(DType::F32)?;
        self.perplexity(&one_hot, mask)
    }

    /// How many codes the soft choices spread over: the exponential of the entropy of the softmax averaged over the rows,
    /// summed over the groups; f32, with gradient.
    ///
    /// A `mask` (u8, of the input's leading dims) averages over the rows where it is not 0; where that is none, the result
    /// is NaN. Errors: a mask of another shape or dtype.
    ///
    /// ```
    /// # use candle_core::{DType, Device, Tensor};
    /// # use candle_nn::VarBuilder;
    /// # use candle_reparam::{Rng, modules::{GumbelVectorQuantizer, QuantizerConfig}};
    /// # let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
    /// # let quantizer = GumbelVectorQuantizer::new(QuantizerConfig::wav2vec2(512)?, vb, Rng::new(42))?;
    /// let quantized = quantizer.eval(&Tensor::zeros((2, 49, 512), DType::F32, &Device::Cpu)?)?;
    /// let spread = quantized.prob_perplexity(None)?.to_scalar::<f32>()?;
    /// assert!((spread - 640.0).abs() < 0.1); // weights of 0: all codes alike
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn prob_perplexity(&self, mask: Option<&Tensor>) -> Result<Tensor> {
        let logits = self.logits.to_dtype(DType::F32)?;
        let probs = tempered_softmax(&logits, 1.0, D::Minus1)?;
        self.perplexity(&probs, mask)
    }

    /// `(groups codes - prob_perplexity) / (groups codes)`: 0 where all codes are used alike; f32, with gradient.
    ///
    /// ```
    /// # use candle_core::{DType, Device, Tensor};
    /// # use candle_nn::VarBuilder;
    /// # use candle_reparam::{Rng, modules::{GumbelVectorQuantizer, QuantizerConfig}};
    /// # let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
    /// # let quantizer = GumbelVectorQuantizer::new(QuantizerConfig::wav2vec2(512)?, vb, Rng::new(42))?;
    /// let quantized = quantizer.eval(&Tensor::zeros((2, 49, 512), DType::F32, &Device::Cpu)?)?;
    /// assert!(quantized.diversity_loss(None)?.to_scalar::<f32>()?.abs() < 1e-3);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn diversity_loss(&self, mask: Option<&Tensor>) -> Result<Tensor> {
        let (_, groups, codes) = self.logits.dims3()?;
        let all = (groups * codes) as f64;
        self.prob_perplexity(mask)?.affine(-1.0 / all, 1.0)
    }

    /// Of choices (N, groups, codes), as fairseq and `transformers` have it: with 1e-7 inside of the logarithm.
    fn perplexity(&self, choices: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let average = match mask {
            None => choices.mean(0)?,
            Some(mask) => {
                if (mask.dims(), mask.dtype()) != (&self.leading[..], DType::U8) {
                    bail!(
                        "{NAME}: the mask has shape {:?} and dtype {:?}, expected {:?} and u8",
                        mask.dims(),
                        mask.dtype(),
                        self.leading
                    )
                }
                let rows = choices.dim(0)?;
                let mask = mask.reshape((rows, 1, 1))?;
                let weight = mask.ne(&mask.zeros_like()?)?.to_dtype(DType::F32)?;
                let count = weight.sum_all()?;
                choices
                    .broadcast_mul(&weight)?
                    .sum(0)?
                    .broadcast_div(&count)?
            }
        };
        let logs = average.affine(1.0, 1e-7)?.log()?;
        average.mul(&logs)?.sum(D::Minus1)?.neg()?.exp()?.sum_all()
    }
}
