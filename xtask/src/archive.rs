//! Packages taken from the distribution's archive as files, without installing them or touching the system's apt.
//!
//! apt-get works on a source list, state and cache of the project's own, below `target/cache/apt`. The archive's address
//! comes from the system's configuration (`apt-get indextargets`). The private state pretends to be an arm64 system, so
//! that no foreign architecture has to be set up; the few packages of another one that are wanted have it in their
//! name, as in `rustc-web:amd64`. Signatures are checked as always.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::packages::{is_debian_like, is_root, os_release};
use crate::process;
use crate::progress::Progress;
use crate::project::{Project, write_whole};

const ARCHIVE_KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// One line for each index that apt knows: address, release as configured, origin, component, kind.
const TARGET_FORMAT: &str = "$(REPO_URI)|$(RELEASE)|$(ORIGIN)|$(COMPONENT)|$(CREATED_BY)";

/// A suite of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Suite {
    address: String,
    release: String,
}

/// The distribution's archive, seen through private apt state.
pub(crate) struct Archive {
    folder: PathBuf,
    downloads: PathBuf,
    suites: Vec<Suite>,
    backports: Option<Suite>,
    /// An architecture beside arm64 whose lists are wanted as well.
    second: Option<String>,
    sandbox_off: bool,
}

impl Archive {
    /// Finds the archive in the system's configuration; nothing is fetched yet.
    pub(crate) fn open(project: &Project) -> Result<Self> {
        if !is_debian_like() || process::find_program("apt-get").is_none() {
            bail!(
                "kernel source and busybox are fetched with apt-get, which this system does not have; \
                 please pass --kernel-source and --busybox"
            );
        }
        let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
        let codename =
            os_release(&release, "VERSION_CODENAME").context("/etc/os-release has no VERSION_CODENAME")?;
        let targets = |more: &[&str]| {
            let mut command = Command::new("apt-get");
            process::output(command.args(["indextargets", "--format", TARGET_FORMAT]).args(more))
        };
        let mut suites = debian_suites(&targets(&[])?, codename);
        if suites.is_empty() {
            // Before the first `apt-get update` apt only tells what is configured, and only when asked.
            suites = debian_suites(&targets(&["--no-release-info"])?, codename);
        }
        let Some(base) = suites.iter().find(|suite| suite.release == codename) else {
            bail!(
                "apt is not set up for Debian {codename} (component main), so there is no archive to take the kernel \
                 source and busybox from; please pass --kernel-source and --busybox"
            );
        };
        let backports = Suite { address: base.address.clone(), release: format!("{codename}-backports") };
        Ok(Self {
            folder: project.cache().join("apt"),
            downloads: project.cache().join("packages"),
            backports: (!suites.contains(&backports)).then_some(backports),
            suites,
            second: None,
            sandbox_off: is_root()?,
        })
    }

    /// From now on, packages of this architecture are there too.
    pub(crate) fn also(&mut self, architecture: &str) {
        self.second = Some(architecture.to_owned());
    }

    /// The version of a package that would be fetched.
    pub(crate) fn version(&mut self, name: &str) -> Result<String> {
        self.look_for(name, |archive| {
            let policy = process::output(archive.apt("apt-cache").args(["policy", name]))?;
            let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
            Ok(candidate.filter(|version| *version != "(none)").map(str::to_owned))
        })
    }

    /// The names of the packages that a package depends on. It has been looked for before.
    pub(crate) fn dependencies(&self, name: &str) -> Result<Vec<String>> {
        let text = process::output(self.apt("apt-cache").args(["depends", "--important", name]))?;
        let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).collect())
    }

    /// A package as a file; from the cache if it was fetched before.
    pub(crate) fn fetch(&mut self, name: &str) -> Result<PathBuf> {
        if let Some(file) = cached(&self.downloads, name) {
            return Ok(file);
        }
        self.look_for(name, |archive| Ok(archive.offers(name)?.then_some(())))?;
        fs::create_dir_all(&self.downloads)
            .with_context(|| format!("cannot create {}", self.downloads.display()))?;
        let _progress = Progress::new(&format!("fetching {name}"), 0);
        process::output(self.apt("apt-get").args(["download", "-q", name]).current_dir(&self.downloads))
            .with_context(|| format!("cannot fetch {name}"))?;
        cached(&self.downloads, name).with_context(|| format!("apt-get left no file for {name}"))
    }

    /// The package among those with names that match a regular expression that `choose` prefers.
    pub(crate) fn find(
        &mut self,
        expression: &str,
        choose: impl Fn(&[String]) -> Option<&str>,
    ) -> Result<String> {
        self.look_for(expression, |archive| Ok(choose(&archive.search(expression)?).map(str::to_owned)))
    }

    /// Looks into the lists that are there, into fresh ones, and into those of the release's backports.
    fn look_for<T>(&mut self, what: &str, look: impl Fn(&Self) -> Result<Option<T>>) -> Result<T> {
        if self.has_lists()
            && let Some(found) = look(self)?
        {
            return Ok(found);
        }
        self.update()?;
        if let Some(found) = look(self)? {
            return Ok(found);
        }
        if let Some(backports) = self.backports.take() {
            self.suites.push(backports);
            self.update()?;
            if let Some(found) = look(self)? {
                return Ok(found);
            }
        }
        bail!("Debian offers no package {what} for this release, not in backports either")
    }

    fn search(&self, expression: &str) -> Result<Vec<String>> {
        let text = process::output(self.apt("apt-cache").args(["search", "--names-only", expression]))?;
        Ok(text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
    }

    fn has_lists(&self) -> bool {
        self.folder.join("apt.conf").exists() && self.folder.join("lists").exists()
    }

    fn offers(&self, name: &str) -> Result<bool> {
        let policy = process::output(self.apt("apt-cache").args(["policy", name]))?;
        Ok(policy.lines().any(|line| line.trim().starts_with("Candidate:") && !line.contains("(none)")))
    }

    fn update(&self) -> Result<()> {
        for folder in ["lists/partial", "archives/partial"] {
            let folder = self.folder.join(folder);
            fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let keys = if Path::new(ARCHIVE_KEYS).exists() { Some(ARCHIVE_KEYS) } else { None };
        write_whole(&self.folder.join("sources.list"), source_list(&self.suites, keys).as_bytes())?;
        self.configure()?;
        let _progress = Progress::new("fetching the archive's package lists into target/cache/apt", 0);
        process::output(self.apt("apt-get").args(["update", "-q"]))
            .context("cannot fetch the archive's package lists")?;
        Ok(())
    }

    /// An apt program on the private state.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.folder.join("apt.conf")).env("LC_ALL", "C");
        command
    }

    /// Writes the configuration that [`Self::apt`] uses.
    fn configure(&self) -> Result<()> {
        let system = process::output(Command::new("apt-config").arg("dump"))?;
        let inside = |name: &str| self.folder.join(name).display().to_string();
        let mut settings = vec![
            // This file stands for all of the system's.
            ("Dir::Etc::Main", "/dev/null".to_owned()),
            ("Dir::Etc::Parts", "/dev/null".to_owned()),
            ("APT::Architecture", "arm64".to_owned()),
            ("Dir::Etc::SourceList", inside("sources.list")),
            ("Dir::Etc::SourceParts", "/dev/null".to_owned()),
            ("Dir::Etc::Preferences", "/dev/null".to_owned()),
            ("Dir::Etc::PreferencesParts", "/dev/null".to_owned()),
            ("Dir::State", inside("")),
            ("Dir::State::Lists", inside("lists")),
            ("Dir::State::Status", "/dev/null".to_owned()),
            ("Dir::Cache", inside("")),
            // Only package names are needed: no translations, no descriptions of applications.
            ("Acquire::Languages", "none".to_owned()),
            ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false".to_owned()),
        ];
        if self.sandbox_off {
            // Root's apt downloads as another user, who may not be able to write here.
            settings.push(("APT::Sandbox::User", "root".to_owned()));
        }
        let mut text = system_settings(&system);
        text.push_str("#clear APT::Architectures;\nAPT::Architectures:: \"arm64\";\n");
        if let Some(second) = &self.second {
            text.push_str(&format!("APT::Architectures:: \"{second}\";\n"));
        }
        for (key, value) in settings {
            text.push_str(&format!("{key} \"{value}\";\n"));
        }
        write_whole(&self.folder.join("apt.conf"), text.as_bytes())
    }
}

/// What to take over from the output of `apt-config dump`: proxies and the like, but no commands that the system runs
/// after an update (some images delete the system's downloads there), and no lists of what has just been replaced.
fn system_settings(dump: &str) -> String {
    let foreign = ["APT::Update::", "DPkg::", "APT::Architecture", "Acquire::Languages"];
    dump.lines()
        .filter(|line| !foreign.iter().any(|prefix| line.starts_with(prefix)))
        .flat_map(|line| [line, "\n"])
        .collect()
}

/// The package file of this exact name in a folder.
fn cached(folder: &Path, name: &str) -> Option<PathBuf> {
    let (name, architecture) = name.split_once(':').unwrap_or((name, "arm64"));
    let prefix = format!("{name}_");
    let endings = [format!("_{architecture}.deb"), "_all.deb".to_owned()];
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            file.starts_with(&prefix) && endings.iter().any(|ending| file.ends_with(ending))
        })
        .collect();
    files.sort();
    files.pop()
}

/// Debian's own suites of component main, for this release, in the output of `apt-get indextargets`.
///
/// Fields that apt learns from a fetched list are not replaced before the first `apt-get update`; then the
/// configured release decides alone.
fn debian_suites(targets: &str, codename: &str) -> Vec<Suite> {
    let mut suites = Vec::new();
    for line in targets.lines() {
        let fields: Vec<&str> = line.split('|').collect();
        let [address, release, origin, "main", "Packages"] = fields[..] else { continue };
        let ours = origin == "Debian" || origin.is_empty() || origin.starts_with("$(");
        let current = release
            .strip_prefix(codename)
            .is_some_and(|rest| matches!(rest, "" | "-updates" | "-security" | "-backports"));
        let suite = Suite { address: address.to_owned(), release: release.to_owned() };
        if ours && current && !suites.contains(&suite) {
            suites.push(suite);
        }
    }
    suites
}

fn source_list(suites: &[Suite], keys: Option<&str>) -> String {
    let options = keys.map(|path| format!("[signed-by={path}] ")).unwrap_or_default();
    suites.iter().map(|suite| format!("deb {options}{} {} main\n", suite.address, suite.release)).collect()
}

/// Unpacks a package file into a folder.
pub(crate) fn unpack_deb(package: &Path, folder: &Path) -> Result<()> {
    if process::find_program("dpkg-deb").is_none() {
        bail!("{} is a Debian package, and there is no dpkg-deb to unpack it", package.display());
    }
    process::output(Command::new("dpkg-deb").arg("-x").arg(package).arg(folder))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "\
http://mirror.example/debian/|bookworm|Debian|main|Packages
http://mirror.example/debian/|bookworm|Debian|main|DEP-11
http://mirror.example/debian/|bookworm|Debian|contrib|Packages
http://mirror.example/debian/|bookworm-updates|Debian|main|Packages
http://mirror.example/security/|bookworm-security|Debian|main|Packages
http://elsewhere.example/apt/|stable|Elsewhere|main|Packages
";

    fn suite(address: &str, release: &str) -> Suite {
        Suite { address: address.into(), release: release.into() }
    }

    #[test]
    fn suites_are_those_of_debian_main_once_each() {
        let suites = debian_suites(TARGETS, "bookworm");

        assert_eq!(
            suites,
            [
                suite("http://mirror.example/debian/", "bookworm"),
                suite("http://mirror.example/debian/", "bookworm-updates"),
                suite("http://mirror.example/security/", "bookworm-security"),
            ]
        );
    }

    #[test]
    fn suites_are_found_before_any_list_was_fetched() {
        let fresh = TARGETS.replace("|Debian|", "|$(ORIGIN)|");

        assert_eq!(debian_suites(&fresh, "bookworm").len(), 3);
    }

    #[test]
    fn other_vendors_and_releases_are_left_out() {
        assert!(debian_suites("http://e.example/|bookworm|Elsewhere|main|Packages\n", "bookworm").is_empty());
        assert!(debian_suites("http://e.example/|bullseye|Debian|main|Packages\n", "bookworm").is_empty());
        assert!(
            debian_suites("http://e.example/|bookworm-x|$(ORIGIN)|main|Packages\n", "bookworm").is_empty()
        );
    }

    #[test]
    fn system_settings_keep_proxies_and_drop_commands() {
        let dump = "Acquire::http::Proxy \"http://p.example\";\nAPT::Update::Post-Invoke:: \"rm -f x\";\nAPT::Architectures:: \"amd64\";\n";

        assert_eq!(system_settings(dump), "Acquire::http::Proxy \"http://p.example\";\n");
    }

    #[test]
    fn cached_package_is_of_the_wanted_architecture() {
        let folder = std::env::temp_dir().join(format!("xtask-cached-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for name in ["a_1_arm64.deb", "a_1_amd64.deb", "b_1_all.deb", "a-b_1_amd64.deb"] {
            fs::write(folder.join(name), "").unwrap();
        }
        let found =
            |name| cached(&folder, name).map(|p| p.file_name().unwrap().to_string_lossy().into_owned());

        let results = [found("a"), found("a:amd64"), found("b:amd64"), found("a-b")];
        fs::remove_dir_all(&folder).unwrap();

        assert_eq!(
            results,
            [Some("a_1_arm64.deb".into()), Some("a_1_amd64.deb".into()), Some("b_1_all.deb".into()), None]
        );
    }

    #[test]
    fn source_list_names_the_keys_when_there_are_any() {
        let suites = [suite("http://m.example/debian/", "trixie")];

        assert_eq!(source_list(&suites, None), "deb http://m.example/debian/ trixie main\n");
        assert_eq!(
            source_list(&suites, Some("/k.gpg")),
            "deb [signed-by=/k.gpg] http://m.example/debian/ trixie main\n"
        );
    }
}
