//! Bringing an engine into a home: the four sources, and the steps they share.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use orch_core::{ByteCount, ExitCode, Failure, HomeLayout, UnixMillis};
use reqwest::Url;
use uuid::Uuid;

use crate::github::{self, Endpoints};
use crate::ports::{Progress, ToolRunner};
use crate::pypi::Build;
use crate::registry::{self, InstalledEngine, Record, Registry};
use crate::staging::Staging;
use crate::variant::Variant;
use crate::{EXECUTABLE_NAME, archive, download, faults, links, profiles, tree, version};

/// Where an engine comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// An official release.
    Github,
    /// Built from the Python package's sources.
    Pypi,
    /// A build that is already here: an executable, or a folder that holds one. It is registered where it lies.
    Path(PathBuf),
    /// An archive somewhere else.
    Url(String),
}

/// What to install.
#[derive(Clone)]
pub struct InstallRequest {
    pub source: Source,
    /// `None` or `latest` for the newest.
    pub version: Option<String>,
    /// `None` for the plain build for this machine.
    pub variant: Option<String>,
    /// What the download, or the executable of a path, must have.
    pub sha256: Option<String>,
    pub set_default: bool,
    /// Sent to the release server only.
    pub github_token: Option<String>,
    pub endpoints: Endpoints,
}

impl InstallRequest {
    pub fn new(source: Source) -> Self {
        Self {
            source,
            version: None,
            variant: None,
            sha256: None,
            set_default: false,
            github_token: None,
            endpoints: Endpoints::default(),
        }
    }

    fn exact_version(&self) -> Option<&str> {
        self.version.as_deref().filter(|version| !version.eq_ignore_ascii_case("latest"))
    }
}

impl std::fmt::Debug for InstallRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InstallRequest")
            .field("source", &self.source)
            .field("version", &self.version)
            .field("variant", &self.variant)
            .field("set_default", &self.set_default)
            .finish_non_exhaustive()
    }
}

/// Installs an engine and makes it visible as the last step. What is installed already (same source, version
/// and variant) is returned as it is, without a download.
///
/// Needs a tokio runtime. Dropping the future stops a download at once; a tool that runs by then is left to its
/// runner.
pub async fn install(
    home: &HomeLayout,
    request: InstallRequest,
    progress: Arc<dyn Progress>,
    runner: Arc<dyn ToolRunner>,
) -> Result<InstalledEngine, Failure> {
    let sha256 = request.sha256.as_deref().map(normal_sha256).transpose()?;
    let variant = request.variant.as_deref().map_or_else(Variant::host, Variant::for_host);
    let job = Job { home: home.clone(), request, sha256, variant, progress, runner };
    match job.request.source.clone() {
        Source::Github => job.install_release().await,
        Source::Url(url) => job.install_archive(&download::parse_url(&url)?).await,
        Source::Pypi => blocking(move || job.install_package()).await,
        Source::Path(path) => blocking(move || job.register_in_place(&path)).await,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(faults::thread_died)?
}

/// One installation, with everything it needs.
#[derive(Clone)]
struct Job {
    home: HomeLayout,
    request: InstallRequest,
    sha256: Option<String>,
    variant: Variant,
    progress: Arc<dyn Progress>,
    runner: Arc<dyn ToolRunner>,
}

/// What is known of an engine before its executable was asked.
struct Origin {
    source: &'static str,
    version: Option<String>,
    variant: String,
    sha256: Option<String>,
}

impl Job {
    async fn install_release(self) -> Result<InstalledEngine, Failure> {
        let Self { request, progress, .. } = &self;
        if let Some(version) = request.exact_version()
            && let Some(engine) = self.already_there(version).await?
        {
            return Ok(engine);
        }
        progress.step("asking for the release");
        let token = request.github_token.as_deref();
        let release = github::release(&request.endpoints, request.exact_version(), token).await?;
        if request.exact_version().is_none()
            && let Some(engine) = self.already_there(&release.version).await?
        {
            return Ok(engine);
        }
        let (asset, variant) = release.choose(&self.variant)?;
        let staging = self.stage().await?;
        let expected = self.sha256.clone().or_else(|| asset.sha256().map(str::to_ascii_lowercase));
        progress.step(&format!("downloading {} {variant}", release.version));
        let sha256 = self.fetch(&asset.url()?, &staging, "archive", expected.as_deref()).await?;
        if let Some(companion) = release.companion(&variant) {
            progress.step("downloading its runtime libraries");
            let expected = companion.sha256().map(str::to_ascii_lowercase);
            self.fetch(&companion.url()?, &staging, "companion", expected.as_deref()).await?;
        }
        let version = Some(release.version.clone());
        let origin = Origin { source: "github", version, variant, sha256: Some(sha256) };
        blocking(move || self.unpack_and_finish(staging, origin)).await
    }

    async fn install_archive(self, url: &Url) -> Result<InstalledEngine, Failure> {
        if url.scheme() == "http" && self.sha256.is_none() && !download::is_loopback(url) {
            let message = "an unencrypted download needs its checksum";
            return Err(Failure::new(ExitCode::Usage, message).hint("add --sha256, or use an https address"));
        }
        let staging = self.stage().await?;
        self.progress.step("downloading");
        let sha256 = self.fetch(url, &staging, "archive", self.sha256.as_deref()).await?;
        let origin = Origin {
            source: "url",
            version: self.request.exact_version().map(str::to_owned),
            variant: self.variant.to_string(),
            sha256: Some(sha256),
        };
        blocking(move || self.unpack_and_finish(staging, origin)).await
    }

    /// Blocking.
    fn install_package(&self) -> Result<InstalledEngine, Failure> {
        if self.sha256.is_some() {
            let message = "a build from the Python package has no checksum to compare with";
            return Err(Failure::new(ExitCode::Usage, message).hint("leave --sha256 out"));
        }
        let wanted = self.request.exact_version();
        if let Some(version) = wanted
            && let Some(engine) = self.existing("pypi", version)?
        {
            return Ok(engine);
        }
        let staging = Staging::create(&self.home)?;
        let build = Build {
            version: wanted,
            variant: &self.variant,
            runner: self.runner.as_ref(),
            progress: self.progress.as_ref(),
        };
        let version = Some(build.install_into(&staging.tree(), &staging.scratch("venv"))?);
        let origin = Origin { source: "pypi", version, variant: self.variant.to_string(), sha256: None };
        self.finish(staging, origin)
    }

    /// Registers an executable in place: copying it would part it from its libraries, and a rebuild would go
    /// unseen. Blocking.
    fn register_in_place(&self, path: &Path) -> Result<InstalledEngine, Failure> {
        let executable = locate(path)?;
        if let Some(expected) = &self.sha256 {
            verify(expected, &hash_of(&executable)?, &executable.display().to_string())?;
        }
        links::make(executable.parent().unwrap_or(path))?;
        let profile = profiles::probe_and_remember(&self.home, &executable, self.runner.as_ref())?;
        let known =
            Registry::load(&self.home)?.list().into_iter().find(|engine| engine.executable == executable);
        let version = self.request.exact_version().map(str::to_owned).or(profile.version);
        let record = Record {
            id: known.map_or_else(Uuid::new_v4, |engine| engine.id),
            version: version.unwrap_or_else(|| "unknown".to_owned()),
            variant: self.variant.to_string(),
            size_bytes: ByteCount(fs::metadata(&executable).map_or(0, |metadata| metadata.len())),
            executable,
            source: "path".to_owned(),
            sha256: self.sha256.clone(),
            installed_at: UnixMillis::now().to_rfc3339(),
        };
        registry::edit(&self.home, |registry| registry.put(&record, self.request.set_default))?;
        self.installed(record.id)
    }

    async fn already_there(&self, version: &str) -> Result<Option<InstalledEngine>, Failure> {
        let (job, version) = (self.clone(), version.to_owned());
        blocking(move || job.existing("github", &version)).await
    }

    async fn stage(&self) -> Result<Staging, Failure> {
        let home = self.home.clone();
        blocking(move || Staging::create(&home)).await
    }

    /// Downloads into the staging folder and compares the checksum.
    async fn fetch(
        &self,
        url: &Url,
        staging: &Staging,
        name: &str,
        expected: Option<&str>,
    ) -> Result<String, Failure> {
        let target = staging.scratch(name);
        let downloaded = download::file(url, &target, self.progress.as_ref()).await?;
        if let Some(expected) = expected {
            verify(expected, &downloaded.sha256, url.path())?;
        }
        Ok(downloaded.sha256)
    }

    fn unpack_and_finish(&self, staging: Staging, origin: Origin) -> Result<InstalledEngine, Failure> {
        self.progress.step("unpacking");
        archive::unpack(&staging.scratch("archive"), &staging.tree(), archive::LIMITS)?;
        let companion = staging.scratch("companion");
        if companion.exists() {
            // Windows looks for libraries beside the executable.
            let folder =
                executable_in(&staging.tree())?.parent().map_or_else(|| staging.tree(), Path::to_owned);
            archive::unpack(&companion, &folder, archive::LIMITS)?;
        }
        self.finish(staging, origin)
    }

    /// An engine that does not start here is never published.
    fn finish(&self, staging: Staging, origin: Origin) -> Result<InstalledEngine, Failure> {
        let tree = staging.tree();
        let executable = executable_in(&tree)?;
        tree::make_executable(&executable).map_err(|error| faults::install("change", &executable, &error))?;
        links::make(executable.parent().unwrap_or(&tree))?;
        self.progress.step("trying it");
        let profile = crate::probe(&executable, self.runner.as_ref())?;
        let record = Record {
            id: staging.id,
            version: origin.version.or(profile.version).unwrap_or_else(|| "unknown".to_owned()),
            variant: origin.variant,
            executable: executable.clone(),
            source: origin.source.to_owned(),
            sha256: origin.sha256,
            installed_at: UnixMillis::now().to_rfc3339(),
            size_bytes: tree::size(&tree).map_err(|error| faults::install("read", &tree, &error))?,
        };
        let record = staging.publish(&self.home, &executable, record, self.request.set_default)?;
        let engine = self.installed(record.id)?;
        // Asked again under its final path, so that the first start need not.
        let _ = profiles::probe_and_remember(&self.home, &engine.executable, self.runner.as_ref());
        Ok(engine)
    }

    /// The engine if this very build is there already, made the default if that is asked for.
    fn existing(&self, source: &str, version: &str) -> Result<Option<InstalledEngine>, Failure> {
        let found = Registry::load(&self.home)?.list().into_iter().find(|engine| {
            engine.source == source
                && version::same(&engine.version, version)
                && self.variant.accepts(&engine.variant)
                && tree::is_executable(&engine.executable)
        });
        let Some(engine) = found else { return Ok(None) };
        if let (Some(wanted), Some(has)) = (&self.sha256, &engine.sha256) {
            verify(wanted, has, &format!("the installed {version}"))?;
        }
        if !self.request.set_default {
            return Ok(Some(engine));
        }
        registry::set_default(&self.home, &engine.id.to_string()).map(Some)
    }

    fn installed(&self, id: Uuid) -> Result<InstalledEngine, Failure> {
        let missing = || Failure::new(ExitCode::InstallFailed, "another process removed the engine at once");
        Registry::load(&self.home)?.get(id).ok_or_else(missing)
    }
}

fn executable_in(tree: &Path) -> Result<PathBuf, Failure> {
    let found = tree::find(tree, EXECUTABLE_NAME).map_err(|error| faults::install("read", tree, &error))?;
    found.ok_or_else(|| faults::invalid(format!("no {EXECUTABLE_NAME} in it")))
}

/// The executable that a user's path means.
fn locate(path: &Path) -> Result<PathBuf, Failure> {
    let absolute = std::path::absolute(path).map_err(|error| faults::install("find", path, &error))?;
    let executable = match fs::metadata(&absolute) {
        Ok(metadata) if metadata.is_dir() => tree::find(&absolute, EXECUTABLE_NAME)
            .map_err(|error| faults::install("search", &absolute, &error))?
            .ok_or_else(|| faults::not_found(format!("no {EXECUTABLE_NAME} in {}", absolute.display())))?,
        Ok(_) => absolute,
        Err(_) => return Err(faults::not_found(format!("there is no {}", absolute.display()))),
    };
    if tree::is_executable(&executable) {
        Ok(executable)
    } else {
        Err(faults::invalid(format!("{} is not executable", executable.display())))
    }
}

fn normal_sha256(text: &str) -> Result<String, Failure> {
    let bare = text.trim().to_ascii_lowercase();
    let bare = bare.strip_prefix("sha256:").unwrap_or(&bare).to_owned();
    if bare.len() == 64 && bare.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(bare);
    }
    Err(Failure::new(ExitCode::Usage, "a SHA-256 checksum has 64 hexadecimal digits"))
}

fn verify(expected: &str, actual: &str, what: &str) -> Result<(), Failure> {
    if expected == actual {
        return Ok(());
    }
    let message = format!("{what} has the checksum {actual}, expected was {expected}");
    Err(faults::invalid(message).hint("do not use it; check the address and the checksum"))
}

fn hash_of(path: &Path) -> Result<String, Failure> {
    let mut hash = sha2::Sha256::default();
    let copied =
        fs::File::open(path).and_then(|mut file| std::io::copy(&mut file, &mut HashWriter(&mut hash)));
    copied.map_err(|error| faults::install("read", path, &error))?;
    Ok(hex::encode(sha2::Digest::finalize(hash)))
}

/// Lets a file be copied into a checksum.
struct HashWriter<'a>(&'a mut sha2::Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        sha2::Digest::update(self.0, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
