"""Requests signed by botocore, one JSON object a line: the oracle of the verifier."""

import json
import random
import string
import sys
from urllib.parse import quote

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

dice = random.Random(int(sys.argv[1]))


def text(alphabet, most):
    return "".join(dice.choice(alphabet) for _ in range(dice.randint(1, most)))


for _ in range(int(sys.argv[2])):
    token = text(string.ascii_letters + "+/=", 300) if dice.random() < 0.3 else None
    secret = text(string.ascii_letters + string.digits + "+/", 60)
    key = "AKIA" + text(string.ascii_uppercase, 16)
    service, region = dice.choice(["ecr", "ecr-public", "sts"]), dice.choice(["us-east-1", "eu-west-3"])
    segments = [quote(text(string.printable[:95] + "äሴ", 8), safe="-_.~") for _ in range(dice.randint(0, 4))]
    path = "/" + "/".join(segments + [""] * dice.randint(0, 1))
    pairs = [(text(string.printable[:95] + "ä", 6), text(string.printable[:95] + "ä", 6)) for _ in range(dice.randint(0, 4))]
    query = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs)
    body = bytes(dice.randrange(256) for _ in range(dice.randint(0, 200)))
    headers = {"Host": text(string.ascii_lowercase, 9) + ":5000"}
    for _ in range(dice.randint(0, 6)):
        name = dice.choice(["X-Amz-", "X-", "My-", "Content-"]) + text(string.ascii_letters + string.digits, 12)
        headers[name] = text(string.printable[:94] + "   \t", 40).strip() or "x"
    url = f"http://{headers['Host']}{path}" + (f"?{query}" if query else "")
    request = AWSRequest(method=dice.choice(["GET", "POST", "PUT"]), url=url, headers=headers, data=body)
    SigV4Auth(Credentials(key, secret, token), service, region).add_auth(request)
    print(json.dumps({
        "key": key, "secret": secret, "token": token, "service": service, "region": region, "method": request.method,
        "path": path, "query": query, "body": body.hex(), "headers": [[n, v] for n, v in request.headers.items()],
    }))
