"The package, described by settings.ini alone; every `<name>_requirements` there becomes the extra `<name>`."
import re
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup

config = ConfigParser(delimiters=["="])
config.read("settings.ini", encoding="utf-8")
cfg = config["DEFAULT"]

STATUS = {"3": "3 - Alpha", "4": "4 - Beta", "5": "5 - Production/Stable"}

# README.md points into the repository; elsewhere (PyPI) its links and figures need the whole address
readme = Path("README.md").read_text(encoding="utf-8")
readme = re.sub(r"\]\((nbs/images/)", rf"]({cfg['git_url']}/raw/{cfg['branch']}/\1", readme)
readme = re.sub(r"\]\((?!\w+:|#)", rf"]({cfg['git_url']}/blob/{cfg['branch']}/", readme)

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=readme,
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    keywords=cfg["keywords"].split(),
    license_expression="Apache-2.0",
    url=cfg["git_url"],
    project_urls={"Documentation": cfg["doc_host"] + cfg["doc_baseurl"]},
    classifiers=[
        f"Development Status :: {STATUS[cfg['status']]}",
        f"Intended Audience :: {cfg['audience']}",
        f"Natural Language :: {cfg['language']}",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
    python_requires=f">={cfg['min_python']}",
    packages=[cfg["lib_path"]],
    package_dir={"": "."},  # an editable install then puts the checkout on the path; setuptools' import hook would lose against a folder called pneumo
    package_data={cfg["lib_path"]: ["weights/*.safetensors", "texts/*", "templates/*"]},
    install_requires=cfg["requirements"].split(),
    extras_require={k.removesuffix("_requirements"): v.split() for k, v in cfg.items() if k.endswith("_requirements")},
    entry_points={
        "console_scripts": cfg["console_scripts"].split(),
        "nbdev": f"{cfg['lib_name']}={cfg['lib_path']}._modidx:d",
    },
    zip_safe=False,
)
