// A compiled network in an Android app. Build distillc_jni with CMakeLists.txt, and put the bundle's
// lib*.so beside it, in src/main/jniLibs/arm64-v8a. One Model runs in one thread at a time. Where the
// bundle has model.weights, `weights` is the path of that file on the phone.
package distillc

import android.graphics.Bitmap
import java.nio.ByteBuffer

class Model(threads: Int = 0, weights: String? = null) : AutoCloseable {
    private var handle = create(threads, weights)

    /** Restores a picture of any size; [image] is of configuration ARGB_8888. */
    fun restore(image: Bitmap): Bitmap {
        require(image.config == Bitmap.Config.ARGB_8888) { "the bitmap is not ARGB_8888" }
        val factor = scale(handle)
        val source = ByteBuffer.allocateDirect(4 * image.width * image.height)
        val sink = ByteBuffer.allocateDirect(source.capacity() * factor * factor)
        image.copyPixelsToBuffer(source)
        restore(handle, source, sink, image.width, image.height)
        val result = Bitmap.createBitmap(
            factor * image.width, factor * image.height, Bitmap.Config.ARGB_8888
        )
        result.copyPixelsFromBuffer(sink)
        return result
    }

    override fun close() {
        destroy(handle)
        handle = 0
    }

    private external fun create(threads: Int, weights: String?): Long
    private external fun scale(handle: Long): Int
    private external fun restore(
        handle: Long, source: ByteBuffer, sink: ByteBuffer, width: Int, height: Int
    )
    private external fun destroy(handle: Long)

    private companion object {
        init {
            System.loadLibrary("distillc_jni")
        }
    }
}
