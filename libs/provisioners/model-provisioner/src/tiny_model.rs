//! Writes GGUF models of random weights: small enough to be made in passing, real enough for a real engine.
//!
//! The same recipe gives the same bytes, and so, at temperature 0, the same tokens.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use tempfile::NamedTempFile;

/// GGUF pads every tensor to this many bytes when the file does not say otherwise.
const ALIGNMENT: u64 = 32;
const HEADS: u32 = 4;

/// GGUF's numbers for value types and token types.
const TYPE_U32: u32 = 4;
const TYPE_I32: u32 = 5;
const TYPE_F32: u32 = 6;
const TYPE_STRING: u32 = 8;
const TYPE_ARRAY: u32 = 9;
const TENSOR_F32: u32 = 0;
const TOKEN_NORMAL: u32 = 1;
const TOKEN_UNKNOWN: u32 = 2;
const TOKEN_CONTROL: u32 = 3;
const TOKEN_BYTE: u32 = 6;

/// Three special tokens and 256 bytes come before it.
const FIRST_PRINTABLE: u64 = 259;

const CHAT_TEMPLATE: &str = "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}\n\
     {% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

/// The recipe of a model. The default is half a megabyte.
#[derive(Clone, Debug)]
pub struct TinyModel {
    pub seed: u64,
    /// Tokens of context the model claims to have been trained for.
    pub context: u32,
    /// Width; a multiple of 4 heads × 2. File size grows with its square.
    pub embedding: u32,
    pub layers: u32,
    pub feed_forward: u32,
    /// Whether it writes printable ASCII only and never ends a text by itself. Otherwise half of its tokens are
    /// single bytes: broken UTF-8 and early ends, as a real model does now and then.
    pub printable: bool,
}

impl Default for TinyModel {
    fn default() -> Self {
        Self { seed: 1, context: 2048, embedding: 64, layers: 2, feed_forward: 128, printable: true }
    }
}

/// Writes the model that `recipe` describes to `path`, in one step: nobody sees half of it.
pub fn write_tiny_model(path: &Path, recipe: &TinyModel) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = NamedTempFile::new_in(folder)?;
    let mut out = GgufWriter { out: BufWriter::new(file), written: 0 };
    let tokens = vocabulary();
    let tensors = tensors(recipe, tokens.len() as u64);
    write_head(&mut out, recipe, &tokens, &tensors)?;
    write_weights(&mut out, recipe, &tensors)?;
    let file = out.out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.persist(path)?;
    Ok(())
}

struct Tensor {
    name: String,
    /// GGUF's order: the fastest dimension first.
    shape: Vec<u64>,
}

impl Tensor {
    fn elements(&self) -> u64 {
        self.shape.iter().product()
    }
}

fn tensors(recipe: &TinyModel, vocabulary: u64) -> Vec<Tensor> {
    let (width, hidden) = (u64::from(recipe.embedding), u64::from(recipe.feed_forward));
    let tensor = |name: &str, shape: &[u64]| Tensor { name: format!("{name}.weight"), shape: shape.to_vec() };
    let mut all = vec![
        tensor("token_embd", &[width, vocabulary]),
        tensor("output_norm", &[width]),
        tensor("output", &[width, vocabulary]),
    ];
    for layer in 0..recipe.layers {
        let block = |name: &str, shape: &[u64]| tensor(&format!("blk.{layer}.{name}"), shape);
        all.push(block("attn_norm", &[width]));
        all.push(block("ffn_norm", &[width]));
        for name in ["attn_q", "attn_k", "attn_v", "attn_output"] {
            all.push(block(name, &[width, width]));
        }
        all.push(block("ffn_gate", &[width, hidden]));
        all.push(block("ffn_up", &[width, hidden]));
        all.push(block("ffn_down", &[hidden, width]));
    }
    all
}

/// Special tokens, every byte, and printable ASCII: any text can be written with it.
fn vocabulary() -> Vec<(String, u32)> {
    let mut tokens = vec![
        ("<unk>".to_owned(), TOKEN_UNKNOWN),
        ("<s>".to_owned(), TOKEN_CONTROL),
        ("</s>".to_owned(), TOKEN_CONTROL),
    ];
    tokens.extend((0..=255_u8).map(|byte| (format!("<0x{byte:02X}>"), TOKEN_BYTE)));
    tokens.push(("\u{2581}".to_owned(), TOKEN_NORMAL)); // how this tokenizer writes a space
    tokens.extend(('!'..='~').map(|letter| (letter.to_string(), TOKEN_NORMAL)));
    tokens
}

fn write_head(
    out: &mut GgufWriter,
    recipe: &TinyModel,
    tokens: &[(String, u32)],
    tensors: &[Tensor],
) -> io::Result<()> {
    const METADATA_ENTRIES: u64 = 20;
    out.bytes(b"GGUF")?;
    out.u32(3)?; // version
    out.u64(tensors.len() as u64)?;
    out.u64(METADATA_ENTRIES)?;
    write_architecture(out, recipe)?;
    write_tokenizer(out, tokens)?;
    let mut offset = 0;
    for tensor in tensors {
        out.string(&tensor.name)?;
        out.u32(tensor.shape.len() as u32)?;
        for &dimension in &tensor.shape {
            out.u64(dimension)?;
        }
        out.u32(TENSOR_F32)?;
        out.u64(offset)?;
        offset += (tensor.elements() * 4).next_multiple_of(ALIGNMENT);
    }
    out.pad()
}

fn write_architecture(out: &mut GgufWriter, recipe: &TinyModel) -> io::Result<()> {
    out.text_entry("general.architecture", "llama")?;
    out.text_entry("general.name", "tiny")?;
    out.u32_entry("llama.context_length", recipe.context)?;
    out.u32_entry("llama.embedding_length", recipe.embedding)?;
    out.u32_entry("llama.block_count", recipe.layers)?;
    out.u32_entry("llama.feed_forward_length", recipe.feed_forward)?;
    out.u32_entry("llama.attention.head_count", HEADS)?;
    out.u32_entry("llama.attention.head_count_kv", HEADS)?;
    out.f32_entry("llama.attention.layer_norm_rms_epsilon", 1e-5)?;
    out.u32_entry("llama.rope.dimension_count", recipe.embedding / HEADS)?;
    out.f32_entry("llama.rope.freq_base", 10_000.0)?;
    out.u32_entry("general.file_type", 0) // all tensors F32
}

fn write_tokenizer(out: &mut GgufWriter, tokens: &[(String, u32)]) -> io::Result<()> {
    out.text_entry("tokenizer.ggml.model", "llama")?;
    out.array_head("tokenizer.ggml.tokens", TYPE_STRING, tokens.len())?;
    for (text, _) in tokens {
        out.string(text)?;
    }
    out.array_head("tokenizer.ggml.scores", TYPE_F32, tokens.len())?;
    for _ in tokens {
        out.f32(0.0)?;
    }
    out.array_head("tokenizer.ggml.token_type", TYPE_I32, tokens.len())?;
    for (_, kind) in tokens {
        out.u32(*kind)?;
    }
    out.u32_entry("tokenizer.ggml.unknown_token_id", 0)?;
    out.u32_entry("tokenizer.ggml.bos_token_id", 1)?;
    out.u32_entry("tokenizer.ggml.eos_token_id", 2)?;
    out.text_entry("tokenizer.chat_template", CHAT_TEMPLATE)
}

fn write_weights(out: &mut GgufWriter, recipe: &TinyModel, tensors: &[Tensor]) -> io::Result<()> {
    let mut random = fastrand::Rng::with_seed(recipe.seed);
    for tensor in tensors {
        let is_norm = tensor.shape.len() == 1;
        // A token whose output weights are zero never beats the best of the random ones.
        let silent = if recipe.printable && tensor.name == "output.weight" {
            FIRST_PRINTABLE * u64::from(recipe.embedding)
        } else {
            0
        };
        for index in 0..tensor.elements() {
            // Norms of one and small weights keep the activations finite through any number of layers.
            let weight = if is_norm { 1.0 } else { (random.f32() - 0.5) * 0.2 };
            out.f32(if index < silent { 0.0 } else { weight })?;
        }
        out.pad()?;
    }
    Ok(())
}

/// GGUF's primitive forms, all little-endian.
struct GgufWriter {
    out: BufWriter<NamedTempFile>,
    written: u64,
}

impl GgufWriter {
    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    fn u32(&mut self, value: u32) -> io::Result<()> {
        self.bytes(&value.to_le_bytes())
    }

    fn u64(&mut self, value: u64) -> io::Result<()> {
        self.bytes(&value.to_le_bytes())
    }

    fn f32(&mut self, value: f32) -> io::Result<()> {
        self.bytes(&value.to_le_bytes())
    }

    fn string(&mut self, text: &str) -> io::Result<()> {
        self.u64(text.len() as u64)?;
        self.bytes(text.as_bytes())
    }

    fn entry(&mut self, key: &str, kind: u32) -> io::Result<()> {
        self.string(key)?;
        self.u32(kind)
    }

    fn text_entry(&mut self, key: &str, value: &str) -> io::Result<()> {
        self.entry(key, TYPE_STRING)?;
        self.string(value)
    }

    fn u32_entry(&mut self, key: &str, value: u32) -> io::Result<()> {
        self.entry(key, TYPE_U32)?;
        self.u32(value)
    }

    fn f32_entry(&mut self, key: &str, value: f32) -> io::Result<()> {
        self.entry(key, TYPE_F32)?;
        self.f32(value)
    }

    fn array_head(&mut self, key: &str, element: u32, length: usize) -> io::Result<()> {
        self.entry(key, TYPE_ARRAY)?;
        self.u32(element)?;
        self.u64(length as u64)
    }

    fn pad(&mut self) -> io::Result<()> {
        let missing = self.written.next_multiple_of(ALIGNMENT) - self.written;
        self.bytes(&[0; ALIGNMENT as usize][..missing as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(recipe: &TinyModel) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        write_tiny_model(&path, recipe).unwrap();
        std::fs::read(&path).unwrap()
    }

    #[test]
    fn the_same_seed_gives_the_same_model() {
        let recipe = TinyModel::default();
        assert!(written(&recipe) == written(&recipe));
        assert!(written(&recipe) != written(&TinyModel { seed: 2, ..recipe }));
    }

    #[test]
    fn the_default_is_small() {
        let bytes = written(&TinyModel::default());
        assert_eq!(&bytes[..4], b"GGUF");
        assert!(bytes.len() < 700_000, "{}", bytes.len());
    }
}
