"""Prints a template, and what the SAM translator makes of it for each set of
parameters, as JSON: translate.py TEMPLATE {"name": {"Parameter": "value"}}."""

import json
import logging
import os
import sys

logging.disable(logging.CRITICAL)
os.environ.setdefault("AWS_DEFAULT_REGION", "eu-central-1")  # the translator asks for one and calls nobody

from cfnlint.decode import cfn_yaml  # noqa: E402
from samtranslator.parser.parser import Parser  # noqa: E402
from samtranslator.translator.translator import Translator  # noqa: E402

template = json.loads(json.dumps(cfn_yaml.load(sys.argv[1])))
source = json.loads(json.dumps(template))
# sam build and sam package put S3 addresses where the folders were.
for resource in source["Resources"].values():
    for key in ("CodeUri", "ContentUri"):
        if resource["Type"].startswith("AWS::Serverless::LayerVersion") and key == "ContentUri":
            resource["Properties"][key] = "s3://bucket/layer"
        if resource["Type"] == "AWS::Serverless::Function" and key == "CodeUri":
            resource["Properties"][key] = "s3://bucket/function"
translated = {
    name: Translator({}, Parser()).translate(json.loads(json.dumps(source)), given) for name, given in json.loads(sys.argv[2]).items()
}
json.dump({"template": template, "translated": translated}, sys.stdout)
