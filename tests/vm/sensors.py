"""Virtual sensors for the virtual machine: a radio and its peers, made of Bumble, on a stream of HCI packets.

The machine's kernel talks to a controller here as to a USB dongle; the sensors are on a link in memory behind it. So all
from the kernel's Bluetooth up is real: L2CAP, ATT, pairing, BlueZ, D-Bus, the daemon.
"""

import asyncio
import struct

from bumble.controller import Controller
from bumble.core import UUID, AdvertisingData, PhysicalTransport
from bumble.device import Device
from bumble.gatt import Characteristic, Service
from bumble.hci import Address, LeFeatureMask
from bumble.host import Host
from bumble.link import LocalLink
from bumble.pairing import PairingConfig, PairingDelegate
from bumble.transport import open_transport
from bumble.transport.common import AsyncPipeSink

STRAP = "C0:FF:EE:00:00:01"
CUFF = "C0:FF:EE:00:00:0A"


class Link(LocalLink):
    """Bumble names the sender of a packet by its random address; Linux connects from its public one, and the peer would
    find no connection. The sender is whom the connection was made with."""

    def send_acl_data(self, sender_controller, destination_address, transport, data):
        connection = sender_controller.le_connections.get(destination_address)
        receiver = self.find_le_controller(destination_address)
        if transport != PhysicalTransport.LE or connection is None or receiver is None:
            return
        source = connection.self_address
        asyncio.get_running_loop().call_soon(lambda: receiver.on_link_acl_data(source, transport, data))


class Radio(Controller):
    """The kernel's controller. It announces nothing that Bumble does not do: Linux would wait for its events."""

    le_features = Controller.le_features & ~(LeFeatureMask.LL_PRIVACY | LeFeatureMask.LE_EXTENDED_ADVERTISING)


class Sensor:
    """A sensor with one characteristic that sends, and a battery."""

    def __init__(self, name, address, service, characteristic, encrypted=False):
        self.name, self.address, self.service = name, address, service
        self.events = []
        properties = Characteristic.Properties
        sends = properties.INDICATE if encrypted else properties.NOTIFY
        readable = Characteristic.READABLE
        rights = Characteristic.READ_REQUIRES_ENCRYPTION | Characteristic.WRITE_REQUIRES_ENCRYPTION
        self.indicates = encrypted
        self.value = Characteristic(
            UUID.from_16_bits(characteristic), sends, rights if encrypted else readable | Characteristic.WRITEABLE, b""
        )
        self.battery = Characteristic(UUID.from_16_bits(0x2A19), properties.READ, readable, b"\x5f")

    def attach(self, link):
        controller = Controller(self.name, link=link)
        host = Host(controller, AsyncPipeSink(controller))
        self.device = device = Device(name=self.name, address=Address(self.address), host=host)
        device.add_service(Service(UUID.from_16_bits(self.service), [self.value]))
        if self.indicates:
            # Real cuffs demand it at the subscription; what Bumble adds for that is open to everybody.
            chosen = device.gatt_server.get_attribute(self.value.handle + 1)
            chosen.permissions |= Characteristic.WRITE_REQUIRES_ENCRYPTION
        device.add_service(Service(UUID.from_16_bits(0x180F), [self.battery]))
        device.advertising_data = bytes(
            AdvertisingData(
                [
                    (AdvertisingData.FLAGS, b"\x06"),
                    (AdvertisingData.COMPLETE_LIST_OF_16_BIT_SERVICE_CLASS_UUIDS, struct.pack("<H", self.service)),
                    (AdvertisingData.COMPLETE_LOCAL_NAME, self.name.encode()),
                ]
            )
        )
        nobody = PairingDelegate(PairingDelegate.IoCapability.NO_OUTPUT_NO_INPUT)
        device.pairing_config_factory = lambda _: PairingConfig(sc=True, mitm=False, bonding=True, delegate=nobody)
        device.on("connection", self.connected)

    def connected(self, connection):
        self.events.append("connected")
        connection.on("disconnection", lambda _: self.disconnected())
        connection.on("pairing", lambda _: self.events.append("paired"))
        connection.on("pairing_failure", lambda reason: self.events.append(f"pairing failed: {reason}"))
        connection.on("connection_encryption_change", lambda: self.events.append("encrypted"))

    def disconnected(self):
        self.events.append("disconnected")
        if self.present:
            asyncio.ensure_future(self.appear())

    async def appear(self):
        self.present = True
        if not self.device.is_advertising and not self.links():
            await self.device.start_advertising(auto_restart=False)

    async def vanish(self):
        """Out of range: neither a link nor advertisements."""
        self.present = False
        if self.device.is_advertising:
            await self.device.stop_advertising()
        await self.drop()

    async def drop(self):
        for connection in self.links():
            await connection.disconnect()

    def links(self):
        return list(self.device.connections.values())

    async def send(self, value):
        """To who has subscribed; whether there is somebody."""
        sent = False
        for connection in self.links():
            # The client's choice: 0 is nothing.
            if self.device.gatt_server.read_cccd(connection, self.value) == b"\0\0":
                continue
            sent = True
            if self.indicates:
                await self.device.indicate_subscriber(connection, self.value, value)
            else:
                await self.device.notify_subscriber(connection, self.value, value)
        return sent


class Strap(Sensor):
    """A heart-rate strap (HRS 1.0): a measurement each second."""

    def __init__(self):
        super().__init__("Strap", STRAP, 0x180D, 0x2A37)
        self.is_silent = False
        # Heart rates that somebody who has subscribed was sent.
        self.sent = set()

    async def live(self):
        rate = 60
        while True:
            await asyncio.sleep(1)
            # Each one differs, so that no reading is taken for another.
            rate = 60 + (rate - 59) % 60
            if not self.is_silent:
                # 8 bits, skin contact supported and there (3.1.1.1).
                if await ignoring_ends(self.send(bytes([0x06, rate]))):
                    self.sent.add(rate)


class Cuff(Sensor):
    """A blood-pressure cuff (BLS 1.1.1), only over an encrypted link. It sends what it has stored and ends the link."""

    def __init__(self):
        super().__init__("Cuff", CUFF, 0x1810, 0x2A35, encrypted=True)
        self.stored = []

    async def live(self):
        while True:
            await asyncio.sleep(0.2)
            while self.stored and await ignoring_ends(self.send(self.stored[0])):
                self.stored.pop(0)
                if not self.stored:
                    await ignoring_ends(self.vanish())

    async def measure(self, systolic, diastolic):
        # mmHg, no time stamp; the mean is not given (NaN, 3.1.1.2).
        self.stored.append(struct.pack("<BHHH", 0, systolic, diastolic, 0x07FF))
        await self.appear()


async def ignoring_ends(sending):
    """A link that ends while something is sent is no fault of a sensor."""
    try:
        return await asyncio.wait_for(sending, 10)
    except Exception as error:  # noqa: BLE001: Bumble has no common class of these
        print(f"   a sensor could not send: {error!r}", flush=True)
        return False


async def start(socket, bonds=None):
    """The radio on this Unix socket, and its sensors: the strap is there, the cuff is asleep. They have the bonds that are
    in `bonds`, by address, and leave theirs there."""
    transport = await open_transport(f"unix-server:{socket}")
    link = Link()
    Radio("kernel", host_source=transport.source, host_sink=transport.sink, link=link, public_address="00:AA:01:00:00:42")
    strap, cuff = Strap(), Cuff()
    for sensor in (strap, cuff):
        sensor.present = False
        sensor.attach(link)
        sensor.device.keystore = (bonds or {}).get(sensor.address)
        await sensor.device.power_on()
        if bonds is not None:
            bonds[sensor.address] = sensor.device.keystore
    await strap.appear()
    tasks = [asyncio.ensure_future(sensor.live()) for sensor in (strap, cuff)]
    return strap, cuff, tasks
