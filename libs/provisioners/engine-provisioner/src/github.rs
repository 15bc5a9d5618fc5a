//! Official builds: the releases of the llama.cpp project.

use orch_core::{ExitCode, Failure};
use reqwest::Url;
use serde::Deserialize;

use crate::download;
use crate::faults;
use crate::variant::Variant;

const GITHUB_API: &str = "https://api.github.com";
const REPOSITORY: &str = "ggml-org/llama.cpp";
const ENDINGS: [&str; 2] = [".tar.gz", ".zip"];

/// Where releases are asked for: the default, unless a mirror or a test says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    pub github_api: String,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self { github_api: GITHUB_API.to_owned() }
    }
}

/// One release.
#[derive(Clone, Debug, Deserialize)]
pub struct Release {
    #[serde(rename = "tag_name")]
    pub version: String,
    /// RFC 3339.
    #[serde(default)]
    pub published_at: Option<String>,
    #[serde(default)]
    assets: Vec<Asset>,
}

/// A file of a release.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Asset {
    name: String,
    browser_download_url: String,
    /// `sha256:` and 64 hexadecimal digits.
    #[serde(default)]
    digest: Option<String>,
}

impl Asset {
    pub(crate) fn url(&self) -> Result<Url, Failure> {
        download::parse_url(&self.browser_download_url)
    }

    pub(crate) fn sha256(&self) -> Option<&str> {
        self.digest.as_deref()?.strip_prefix("sha256:")
    }
}

impl Release {
    /// The variants that this release offers, for any machine.
    pub fn variants(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.assets.iter().filter_map(|asset| self.variant_of(asset)).map(str::to_owned).collect();
        names.sort();
        names.dedup();
        names
    }

    /// `ubuntu-x64` of `llama-b11434-bin-ubuntu-x64.tar.gz`.
    fn variant_of<'a>(&self, asset: &'a Asset) -> Option<&'a str> {
        let rest = asset.name.strip_prefix("llama-")?.strip_prefix(&self.version)?.strip_prefix("-bin-")?;
        ENDINGS.iter().find_map(|ending| rest.strip_suffix(ending))
    }

    /// The build for this machine, with its variant. Where several backend versions fit, the lowest: it runs
    /// with the most drivers.
    pub(crate) fn choose(&self, wanted: &Variant) -> Result<(&Asset, String), Failure> {
        let mut fitting: Vec<(&Asset, &str)> = self
            .assets
            .iter()
            .filter_map(|asset| Some((asset, self.variant_of(asset)?)))
            .filter(|(_, variant)| wanted.accepts_release_file(variant))
            .collect();
        fitting.sort_by_key(|(_, variant)| *variant);
        fitting.first().map(|(asset, variant)| (*asset, (*variant).to_owned())).ok_or_else(|| {
            faults::not_found(format!("release {} has no build {wanted}", self.version))
                .hint(format!("it has: {}", self.variants().join(", ")))
        })
    }

    /// The runtime libraries that a CUDA build for Windows needs beside it.
    pub(crate) fn companion(&self, variant: &str) -> Option<&Asset> {
        let name = format!("cudart-llama-bin-{variant}.zip");
        self.assets.iter().find(|asset| asset.name == name)
    }
}

/// The newest release.
pub async fn latest_release(endpoints: &Endpoints, token: Option<&str>) -> Result<Release, Failure> {
    fetch(endpoints, "latest", token).await
}

/// The release of a version; the newest without one.
pub(crate) async fn release(
    endpoints: &Endpoints,
    version: Option<&str>,
    token: Option<&str>,
) -> Result<Release, Failure> {
    match version {
        None => latest_release(endpoints, token).await,
        Some(version) if is_tag(version) => fetch(endpoints, &format!("tags/{version}"), token).await,
        Some(version) => Err(Failure::new(ExitCode::Usage, format!("{version:?} is not a release name"))),
    }
}

async fn fetch(endpoints: &Endpoints, which: &str, token: Option<&str>) -> Result<Release, Failure> {
    let base = endpoints.github_api.trim_end_matches('/');
    let url = download::parse_url(&format!("{base}/repos/{REPOSITORY}/releases/{which}"))?;
    download::json(&url, token).await
}

/// A name that stays one segment of an address and of a path.
fn is_tag(version: &str) -> bool {
    let plain = |character: char| character.is_ascii_alphanumeric() || "._-+".contains(character);
    !version.is_empty() && version.len() <= 100 && version.chars().all(plain) && !version.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(names: &[&str]) -> Release {
        let asset = |name: &&str| Asset {
            name: (*name).to_owned(),
            browser_download_url: format!("https://example.test/{name}"),
            digest: None,
        };
        Release { version: "b9".to_owned(), published_at: None, assets: names.iter().map(asset).collect() }
    }

    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    #[test]
    fn the_build_for_this_machine_is_chosen() {
        let release = release(&[
            "llama-b9-bin-macos-arm64.tar.gz",
            "llama-b9-bin-ubuntu-arm64.tar.gz",
            "llama-b9-bin-ubuntu-vulkan-x64.tar.gz",
            "llama-b9-bin-ubuntu-x64.tar.gz",
            "llama-b9-bin-win-cpu-x64.zip",
            "llama-b9-xcframework.zip",
        ]);
        assert_eq!(release.choose(&Variant::host()).unwrap().0.name, "llama-b9-bin-ubuntu-x64.tar.gz");
        assert_eq!(release.choose(&Variant::for_host("win-vulkan-x64")).unwrap().1, "ubuntu-vulkan-x64");
        let failure = release.choose(&Variant::for_host("cuda")).unwrap_err();
        assert_eq!(failure.exit, ExitCode::EngineNotFound);
        assert!(failure.hint.unwrap().contains("ubuntu-vulkan-x64"));
    }

    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    #[test]
    fn the_lowest_backend_version_is_chosen_unless_one_is_asked_for() {
        let release =
            release(&["llama-b9-bin-ubuntu-rocm-7.2-x64.tar.gz", "llama-b9-bin-ubuntu-rocm-6.4-x64.tar.gz"]);
        assert_eq!(release.choose(&Variant::for_host("rocm")).unwrap().1, "ubuntu-rocm-6.4-x64");
        assert_eq!(release.choose(&Variant::for_host("rocm-7.2")).unwrap().1, "ubuntu-rocm-7.2-x64");
    }

    #[test]
    fn cuda_builds_for_windows_have_a_companion() {
        let release = release(&["cudart-llama-bin-win-cuda-12.4-x64.zip"]);
        assert!(release.companion("win-cuda-12.4-x64").is_some());
        assert!(release.companion("ubuntu-x64").is_none());
    }

    #[test]
    fn a_version_cannot_change_the_address() {
        for bad in ["", "../../x", "a/b", "a?b", "..", "b 1"] {
            assert!(!is_tag(bad), "{bad}");
        }
        assert!(is_tag("b11434") && is_tag("v0.6.0-dev"));
    }
}
