//! Published test vectors of the algorithms that the providers and the store use, called as they call them.

use ring::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;

fn bytes(hex: &str) -> Vec<u8> {
    let mut bytes = vec![0; hex.len() / 2];
    crate::digest::decode_hex(hex, &mut bytes).unwrap();
    bytes
}

struct Sealed<'a> {
    key: &'a str,
    nonce: &'a str,
    authenticated: &'a str,
    plain: &'a [u8],
    sealed: &'a str,
    tag: &'a str,
}

fn check(algorithm: &'static Algorithm, vector: &Sealed<'_>) {
    let key = LessSafeKey::new(UnboundKey::new(algorithm, &bytes(vector.key)).unwrap());
    let nonce = || Nonce::try_assume_unique_for_key(&bytes(vector.nonce)).unwrap();
    let authenticated = bytes(vector.authenticated);
    let mut content = vector.plain.to_vec();
    let tag = key.seal_in_place_separate_tag(nonce(), Aad::from(&authenticated), &mut content).unwrap();
    assert_eq!((&content, tag.as_ref()), (&bytes(vector.sealed), &bytes(vector.tag)[..]));

    content.extend_from_slice(tag.as_ref());
    assert_eq!(key.open_in_place(nonce(), Aad::from(&authenticated), &mut content.clone()).unwrap(), vector.plain);
    let last = content.len() - 1;
    content[last] ^= 1;
    key.open_in_place(nonce(), Aad::from(&authenticated), &mut content).unwrap_err();
}

/// McGrew and Viega, "The Galois/Counter Mode of Operation (GCM)", test cases 13 to 16: the vectors behind NIST SP
/// 800-38D.
#[test]
fn aes_256_gcm() {
    let zeros = "0".repeat(64);
    let key = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308";
    let plain = bytes(concat!(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72",
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
    ));
    let sealed = concat!(
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa",
        "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad",
    );
    for vector in [
        Sealed {
            key: &zeros,
            nonce: &zeros[..24],
            authenticated: "",
            plain: b"",
            sealed: "",
            tag: "530f8afbc74536b9a963b4f1c4cb738b",
        },
        Sealed {
            key: &zeros,
            nonce: &zeros[..24],
            authenticated: "",
            plain: &[0; 16],
            sealed: "cea7403d4d606b6e074ec5d3baf39d18",
            tag: "d0d1c8a799996bf0265b98b5d48ab919",
        },
        Sealed {
            key,
            nonce: "cafebabefacedbaddecaf888",
            authenticated: "",
            plain: &plain,
            sealed,
            tag: "b094dac5d93471bdec1a502270e3cc6c",
        },
        Sealed {
            key,
            nonce: "cafebabefacedbaddecaf888",
            authenticated: "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            plain: &plain[..60],
            sealed: &sealed[..120],
            tag: "76fc6ece0f4e1768cddf8853bb2d551b",
        },
    ] {
        check(&AES_256_GCM, &vector);
    }
}

/// RFC 8439, section 2.8.2.
#[test]
fn chacha20_poly1305() {
    check(
        &CHACHA20_POLY1305,
        &Sealed {
            key: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
            nonce: "070000004041424344454647",
            authenticated: "50515253c0c1c2c3c4c5c6c7",
            plain: b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, \
                     sunscreen would be it.",
            sealed: concat!(
                "d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d6",
                "3dbea45e8ca9671282fafb69da92728b1a71de0a9e060b2905d6a5b67ecd3b36",
                "92ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc",
                "3ff4def08e4b7a9de576d26586cec64b6116",
            ),
            tag: "1ae10b594f09e26a7e902ecbd0600691",
        },
    );
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// RFC 5869, test cases 1 to 3.
#[test]
fn hkdf_sha_256() {
    let range = |from: u8, to: u8| (from..=to).collect::<Vec<u8>>();
    for (input, salt, info, output) in [
        (
            vec![0x0b; 22],
            range(0x00, 0x0c),
            range(0xf0, 0xf9),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            range(0x00, 0x4f),
            range(0x60, 0xaf),
            range(0xb0, 0xff),
            concat!(
                "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09",
                "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
            ),
        ),
        (
            vec![0x0b; 22],
            vec![],
            vec![],
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ] {
        let key = hkdf::Salt::new(hkdf::HKDF_SHA256, &salt).extract(&input);
        let mut derived = vec![0; output.len() / 2];
        key.expand(&[&info], Length(derived.len())).unwrap().fill(&mut derived).unwrap();
        assert_eq!(derived, bytes(output));
    }
}

/// RFC 9106, section 5.3.
#[test]
fn argon2id() {
    use argon2::{Algorithm, Argon2, AssociatedData, Block, ParamsBuilder, Version};

    let mut params = ParamsBuilder::new();
    params.m_cost(32).t_cost(3).p_cost(4).output_len(32).data(AssociatedData::new(&[4; 12]).unwrap());
    let params = params.build().unwrap();
    let mut memory = vec![Block::new(); params.block_count()];
    let mut tag = [0; 32];
    Argon2::new_with_secret(&[3; 8], Algorithm::Argon2id, Version::V0x13, params)
        .unwrap()
        .hash_password_into_with_memory(&[1; 32], &[2; 16], &mut tag, &mut memory)
        .unwrap();
    assert_eq!(tag[..], bytes("0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659"));
}
