//! Which build of a version: the part of a release file's name between `bin-` and its ending.

use std::fmt;

/// A build variant such as `ubuntu-vulkan-x64`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    system: &'static str,
    /// `cpu`, `vulkan`, `cuda-12.4` …; what the name says between system and architecture.
    backend: String,
    arch: &'static str,
}

/// What releases call the systems.
const SYSTEMS: [&str; 5] = ["ubuntu", "linux", "win", "macos", "android"];
const ARCHITECTURES: [&str; 6] = ["x64", "arm64", "x86_64", "aarch64", "s390x", "ppc64le"];

impl Variant {
    /// The plain build for this machine.
    pub fn host() -> Self {
        Self { system: host_system(), backend: "cpu".to_owned(), arch: host_arch() }
    }

    /// The variant that `text` asks for on this machine: another system's name or architecture counts as the
    /// host's, so that a config may travel between machines.
    pub fn for_host(text: &str) -> Self {
        let lower = text.trim().to_ascii_lowercase();
        let words = lower.split('-').filter(|word| !SYSTEMS.contains(word) && !ARCHITECTURES.contains(word));
        let backend = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-");
        let backend = if backend.is_empty() || backend == "metal" { "cpu".to_owned() } else { backend };
        Self { backend, ..Self::host() }
    }

    /// The family of the backend without its version: `cuda` of `cuda-12.4`.
    pub fn backend_family(&self) -> &str {
        self.backend.split('-').next().unwrap_or(&self.backend)
    }

    /// The whole backend, version included.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// Whether a build called `name` is what this variant asks for. A version of the backend counts only when
    /// it is asked for.
    pub(crate) fn accepts(&self, name: &str) -> bool {
        let offered = Self::for_host(name);
        offered.backend == self.backend || offered.backend_family() == self.backend
    }

    /// Whether a release file with this variant in its name is built for this system and architecture, and
    /// offers this backend.
    pub(crate) fn accepts_release_file(&self, name: &str) -> bool {
        let fits = |words: [&str; 2]| name.split('-').any(|word| words.contains(&word));
        let system = if self.system == "ubuntu" { ["ubuntu", "linux"] } else { [self.system; 2] };
        fits(system) && fits([self.arch; 2]) && self.accepts(name)
    }
}

impl fmt::Display for Variant {
    /// As a release names it: Windows names its plain build `cpu`, the others do not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.backend == "cpu" && self.system != "win" {
            write!(f, "{}-{}", self.system, self.arch)
        } else {
            write!(f, "{}-{}-{}", self.system, self.backend, self.arch)
        }
    }
}

const fn host_system() -> &'static str {
    if cfg!(windows) {
        "win"
    } else if cfg!(target_os = "macos") {
        "macos"
    } else {
        "ubuntu"
    }
}

const fn host_arch() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "arm64"
    } else if cfg!(target_arch = "s390x") {
        "s390x"
    } else {
        "x64"
    }
}

#[cfg(all(test, target_os = "linux", target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn a_variant_of_another_system_counts_as_the_hosts() {
        assert_eq!(Variant::for_host("win-vulkan-x64").to_string(), "ubuntu-vulkan-x64");
        assert_eq!(Variant::for_host("macos-arm64").to_string(), "ubuntu-x64");
        assert_eq!(Variant::for_host("win-cpu-x64").to_string(), "ubuntu-x64");
        assert_eq!(Variant::for_host("Vulkan").to_string(), "ubuntu-vulkan-x64");
        assert_eq!(Variant::for_host("").to_string(), "ubuntu-x64");
    }

    #[test]
    fn a_backend_version_matters_only_when_it_is_asked_for() {
        assert!(Variant::for_host("cuda").accepts("ubuntu-cuda-12.4-x64"));
        assert!(Variant::for_host("cuda-12.4").accepts("win-cuda-12.4-x64"));
        assert!(!Variant::for_host("cuda-13.1").accepts("win-cuda-12.4-x64"));
        assert!(!Variant::host().accepts("ubuntu-vulkan-x64"));
    }

    #[test]
    fn release_files_of_other_machines_do_not_fit() {
        let host = Variant::host();
        assert!(host.accepts_release_file("ubuntu-x64"));
        assert!(!host.accepts_release_file("ubuntu-arm64"));
        assert!(!host.accepts_release_file("win-cpu-x64"));
        assert!(!host.accepts_release_file("ubuntu-vulkan-x64"));
    }
}
