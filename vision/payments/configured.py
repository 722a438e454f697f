"""The gateways of the merchants that are configured.

The law: what is given is complete and fits together, or the start ends with one line that names the
setting; nothing is given means that there is no merchant, which only the sandbox makes up for.
"""

from __future__ import annotations

import time

from vision.payments.alipay import AlipayGateway
from vision.payments.alipay_config import AlipayFiles, load_alipay
from vision.payments.gateway import Channel, Gateway
from vision.payments.wechat import WechatGateway
from vision.payments.wechat_config import WechatFiles, load_wechat
from vision.settings import Settings


def configured_gateways(settings: Settings) -> dict[Channel, Gateway]:
    """By channel; none when no merchant is configured. Raises SettingError."""
    now = time.time()
    gateways: dict[Channel, Gateway] = {}
    if (wechat := load_wechat(WechatFiles.of(settings), now)) is not None:
        gateways["tecent-pay"] = WechatGateway(wechat)
    if (alipay := load_alipay(AlipayFiles.of(settings), now)) is not None:
        gateways["alipay"] = AlipayGateway(alipay)
    return gateways
